// SPDX-License-Identifier: GPL-2.0
/*
 * Makes the tracepoints of trace.h, and the functions that Rust calls for them. A tracepoint that is
 * off is an instruction that does nothing, behind such a call.
 */

#define CREATE_TRACE_POINTS
#include "trace.h"

void ivshmem_trace_interrupt(u32 device, u32 vector)
{
	trace_ivshmem_interrupt(device, vector);
}

void ivshmem_trace_doorbell(u32 device, u32 peer, u32 vector)
{
	trace_ivshmem_doorbell(device, peer, vector);
}

void ivshmem_trace_state_set(u32 device, u32 state)
{
	trace_ivshmem_state_set(device, state);
}

void ivshmem_trace_state_change(u32 device, u32 peer, u32 old_state, u32 new_state)
{
	trace_ivshmem_state_change(device, peer, old_state, new_state);
}

void ivshmem_trace_throttle(u32 device)
{
	trace_ivshmem_throttle(device);
}

void ivshmem_trace_may_have_lost(u32 device)
{
	trace_ivshmem_may_have_lost(device);
}

void ivshmem_trace_open(u32 device, u64 file)
{
	trace_ivshmem_open(device, file);
}

void ivshmem_trace_release(u32 device, u64 file)
{
	trace_ivshmem_release(device, file);
}

void ivshmem_trace_gone(u32 device)
{
	trace_ivshmem_gone(device);
}

void ivshmem_trace_channel_open(u32 device, u32 peer, u64 file)
{
	trace_ivshmem_channel_open(device, peer, file);
}

void ivshmem_trace_channel_link(u32 device, u32 peer, u64 file, u32 link)
{
	trace_ivshmem_channel_link(device, peer, file, link);
}

void ivshmem_trace_channel_send(u32 device, u32 peer, u64 number, u32 length)
{
	trace_ivshmem_channel_send(device, peer, number, length);
}

void ivshmem_trace_channel_receive(u32 device, u32 peer, u64 number, u32 length)
{
	trace_ivshmem_channel_receive(device, peer, number, length);
}

void ivshmem_trace_fault(u32 device, u64 offset, bool writable, bool mapped)
{
	trace_ivshmem_fault(device, offset, writable, mapped);
}
