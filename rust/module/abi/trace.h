/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints of the module, ivshmem:* in tracefs. Documentation/observing.md tells what each means.
 *
 * Names begin with ivshmem_ because BPF programs find a tracepoint by its name alone. Rust calls
 * the functions, as its macro for tracepoints knows only those of the kernel itself; the Rust mirror is
 * trace.rs. "device" is the N of ivshmemN throughout.
 */
#ifndef _IVSHMEM_TRACE_CALLS_H
#define _IVSHMEM_TRACE_CALLS_H

#include <linux/types.h>

void ivshmem_trace_interrupt(u32 device, u32 vector);
void ivshmem_trace_doorbell(u32 device, u32 peer, u32 vector);
void ivshmem_trace_state_set(u32 device, u32 state);
void ivshmem_trace_state_change(u32 device, u32 peer, u32 old_state, u32 new_state);
void ivshmem_trace_throttle(u32 device);
void ivshmem_trace_may_have_lost(u32 device);
void ivshmem_trace_open(u32 device, u64 file);
void ivshmem_trace_release(u32 device, u64 file);
void ivshmem_trace_gone(u32 device);
void ivshmem_trace_channel_open(u32 device, u32 peer, u64 file);
void ivshmem_trace_channel_link(u32 device, u32 peer, u64 file, u32 link);
void ivshmem_trace_channel_send(u32 device, u32 peer, u64 number, u32 length);
void ivshmem_trace_channel_receive(u32 device, u32 peer, u64 number, u32 length);
void ivshmem_trace_fault(u32 device, u64 offset, bool writable, bool mapped);

#endif /* _IVSHMEM_TRACE_CALLS_H */

#undef TRACE_SYSTEM
#define TRACE_SYSTEM ivshmem

#if !defined(_IVSHMEM_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _IVSHMEM_TRACE_H

#include <linux/tracepoint.h>

TRACE_EVENT(ivshmem_interrupt,
	TP_PROTO(u32 device, u32 vector),
	TP_ARGS(device, vector),
	TP_STRUCT__entry(
		__field(u32, device)
		__field(u32, vector)
	),
	TP_fast_assign(
		__entry->device = device;
		__entry->vector = vector;
	),
	TP_printk("device=%u vector=%u", __entry->device, __entry->vector)
);

TRACE_EVENT(ivshmem_doorbell,
	TP_PROTO(u32 device, u32 peer, u32 vector),
	TP_ARGS(device, peer, vector),
	TP_STRUCT__entry(
		__field(u32, device)
		__field(u32, peer)
		__field(u32, vector)
	),
	TP_fast_assign(
		__entry->device = device;
		__entry->peer = peer;
		__entry->vector = vector;
	),
	TP_printk("device=%u peer=%u vector=%u", __entry->device, __entry->peer, __entry->vector)
);

TRACE_EVENT(ivshmem_state_set,
	TP_PROTO(u32 device, u32 state),
	TP_ARGS(device, state),
	TP_STRUCT__entry(
		__field(u32, device)
		__field(u32, state)
	),
	TP_fast_assign(
		__entry->device = device;
		__entry->state = state;
	),
	TP_printk("device=%u state=%u", __entry->device, __entry->state)
);

TRACE_EVENT(ivshmem_state_change,
	TP_PROTO(u32 device, u32 peer, u32 old_state, u32 new_state),
	TP_ARGS(device, peer, old_state, new_state),
	TP_STRUCT__entry(
		__field(u32, device)
		__field(u32, peer)
		__field(u32, old_state)
		__field(u32, new_state)
	),
	TP_fast_assign(
		__entry->device = device;
		__entry->peer = peer;
		__entry->old_state = old_state;
		__entry->new_state = new_state;
	),
	TP_printk("device=%u peer=%u old_state=%u new_state=%u",
		  __entry->device, __entry->peer, __entry->old_state, __entry->new_state)
);

DECLARE_EVENT_CLASS(ivshmem_file,
	TP_PROTO(u32 device, u64 file),
	TP_ARGS(device, file),
	TP_STRUCT__entry(
		__field(u32, device)
		__field(u64, file)
	),
	TP_fast_assign(
		__entry->device = device;
		__entry->file = file;
	),
	TP_printk("device=%u file=%llu", __entry->device, __entry->file)
);

DEFINE_EVENT(ivshmem_file, ivshmem_open,
	TP_PROTO(u32 device, u64 file),
	TP_ARGS(device, file)
);

DEFINE_EVENT(ivshmem_file, ivshmem_release,
	TP_PROTO(u32 device, u64 file),
	TP_ARGS(device, file)
);

DECLARE_EVENT_CLASS(ivshmem_device,
	TP_PROTO(u32 device),
	TP_ARGS(device),
	TP_STRUCT__entry(
		__field(u32, device)
	),
	TP_fast_assign(
		__entry->device = device;
	),
	TP_printk("device=%u", __entry->device)
);

DEFINE_EVENT(ivshmem_device, ivshmem_throttle,
	TP_PROTO(u32 device),
	TP_ARGS(device)
);

DEFINE_EVENT(ivshmem_device, ivshmem_may_have_lost,
	TP_PROTO(u32 device),
	TP_ARGS(device)
);

DEFINE_EVENT(ivshmem_device, ivshmem_gone,
	TP_PROTO(u32 device),
	TP_ARGS(device)
);

TRACE_EVENT(ivshmem_channel_open,
	TP_PROTO(u32 device, u32 peer, u64 file),
	TP_ARGS(device, peer, file),
	TP_STRUCT__entry(
		__field(u32, device)
		__field(u32, peer)
		__field(u64, file)
	),
	TP_fast_assign(
		__entry->device = device;
		__entry->peer = peer;
		__entry->file = file;
	),
	TP_printk("device=%u peer=%u file=%llu", __entry->device, __entry->peer, __entry->file)
);

TRACE_EVENT(ivshmem_channel_link,
	TP_PROTO(u32 device, u32 peer, u64 file, u32 link),
	TP_ARGS(device, peer, file, link),
	TP_STRUCT__entry(
		__field(u32, device)
		__field(u32, peer)
		__field(u64, file)
		__field(u32, link)
	),
	TP_fast_assign(
		__entry->device = device;
		__entry->peer = peer;
		__entry->file = file;
		__entry->link = link;
	),
	TP_printk("device=%u peer=%u file=%llu link=%u", __entry->device, __entry->peer,
		  __entry->file, __entry->link)
);

DECLARE_EVENT_CLASS(ivshmem_message,
	TP_PROTO(u32 device, u32 peer, u64 number, u32 length),
	TP_ARGS(device, peer, number, length),
	TP_STRUCT__entry(
		__field(u32, device)
		__field(u32, peer)
		__field(u64, number)
		__field(u32, length)
	),
	TP_fast_assign(
		__entry->device = device;
		__entry->peer = peer;
		__entry->number = number;
		__entry->length = length;
	),
	TP_printk("device=%u peer=%u number=%llu length=%u", __entry->device, __entry->peer,
		  __entry->number, __entry->length)
);

DEFINE_EVENT(ivshmem_message, ivshmem_channel_send,
	TP_PROTO(u32 device, u32 peer, u64 number, u32 length),
	TP_ARGS(device, peer, number, length)
);

DEFINE_EVENT(ivshmem_message, ivshmem_channel_receive,
	TP_PROTO(u32 device, u32 peer, u64 number, u32 length),
	TP_ARGS(device, peer, number, length)
);

TRACE_EVENT(ivshmem_fault,
	TP_PROTO(u32 device, u64 offset, bool writable, bool mapped),
	TP_ARGS(device, offset, writable, mapped),
	TP_STRUCT__entry(
		__field(u32, device)
		__field(u64, offset)
		__field(bool, writable)
		__field(bool, mapped)
	),
	TP_fast_assign(
		__entry->device = device;
		__entry->offset = offset;
		__entry->writable = writable;
		__entry->mapped = mapped;
	),
	TP_printk("device=%u offset=0x%llx writable=%d mapped=%d",
		  __entry->device, __entry->offset, __entry->writable, __entry->mapped)
);

#endif /* _IVSHMEM_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
