/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * ivshmem - user-space interface of the IVSHMEM v2 driver
 *
 * An IVSHMEM v2 device (PCI 110a:4106) links 2 or more peers, each a cell of a
 * partitioning hypervisor or a virtual machine. Every peer sees the same
 * shared memory region and can interrupt every other peer. The driver gives
 * each device a file, /dev/ivshmemN (N is the lowest free number when the
 * device appears), and everything a program does with the device it does
 * through that file:
 *
 *   read, write, lseek	the shared memory region, as a file
 *   pread, pwrite
 *   mmap		the same region at the same offsets
 *   poll		what has happened since this file last fetched events
 *   ioctl		the calls below
 *
 * The region as a file
 * --------------------
 *
 *   offset 0		state table: one __u32 per peer, 0 = peer absent
 *   then		read/write section: every peer may write (may be empty)
 *   then		one output section per peer: only that peer may write
 *			(may be empty)
 *
 * IVSHMEM_IOC_INFO tells where each begins, how large it is, and what this
 * peer may do with it. All of the region can be read.
 *
 *   read, pread	Return 0 at and beyond the end. Transfers that would go
 *			beyond it are cut short. Never wait.
 *   write, pwrite	EBADF	file not open for writing
 *			EACCES	the first byte lies in the state table or in
 *				another peer's output section; those are written
 *				by the hypervisor and by that peer only
 *			ENOSPC	the first byte lies beyond the end
 *			EBUSY	the first byte lies in this peer's output
 *				section, and a channel is open
 *			A transfer that begins where this peer may write is cut
 *			short where that ends. O_APPEND has no effect. Writing
 *			rings nobody: follow it with IVSHMEM_IOC_DOORBELL.
 *   both		EFAULT	bad buffer, and nothing was transferred
 *			A transfer of 4 or 8 bytes at an offset divisible by its
 *			size is one single memory access. Larger ones are not
 *			atomic, and bytes of one transfer may be copied in any
 *			order.
 *   lseek		SEEK_SET, SEEK_CUR, SEEK_END (the size of the region);
 *			EINVAL outside of 0 .. size
 *   mmap		MAP_SHARED only (EINVAL otherwise). The range must lie
 *			in sections marked IVSHMEM_SECTION_MMAP (ENXIO
 *			otherwise). PROT_WRITE needs a file open for reading and
 *			writing, and a range within one section marked
 *			IVSHMEM_SECTION_WRITE (EACCES otherwise); EBUSY in the
 *			output section while a channel is open. A mapping that
 *			is not writable can never become so. PROT_EXEC is EPERM.
 *			Reading and writing through a mapping is ordinary,
 *			cached memory access. When the device goes away, an
 *			access through the mapping raises SIGBUS.
 *
 * poll
 * ----
 *
 *   EPOLLIN | EPOLLRDNORM	this file has doorbell events to fetch
 *   EPOLLPRI			this file has state events to fetch
 *   EPOLLOUT | EPOLLWRNORM	always, if the file is open for writing
 *   EPOLLHUP | EPOLLERR	the device is gone
 *
 * poll consumes nothing: a bit stays until IVSHMEM_IOC_EVENTS fetched what it
 * stands for. Each open file has its own record of what it has seen; one
 * reader never takes an event from another.
 *
 * Errors that every call may return
 * ---------------------------------
 *
 *   ENODEV	the device is gone (removed, unbound, found not to answer any
 *		more, or the machine shuts down); this file stays dead, a device
 *		that comes back wants a new open
 *   EFAULT	a pointer does not lead to accessible memory
 *   EBADF	the call changes something (IVSHMEM_IOC_SET_STATE,
 *		IVSHMEM_IOC_DOORBELL) and the file is not open for writing
 *   ENOTTY	this version of the driver does not know the ioctl
 *   EINVAL	an unknown flag, a reserved field that is not zero, or a structure
 *		smaller than the first version of it
 *   E2BIG	a structure larger than the driver knows, with a byte behind the
 *		known part that is not zero
 *
 * Structures may grow. A program passes the size that it was compiled with (it
 * is part of the ioctl number). A smaller one is completed with zeroes on the
 * way in, a larger one is filled with zeroes on the way out. Every structure is
 * the same for 32-bit and 64-bit programs. Reserved fields must be zero.
 */
#ifndef _LINUX_IVSHMEM_H
#define _LINUX_IVSHMEM_H

#include <linux/ioctl.h>
#include <linux/types.h>

/*
 * What this header describes. A driver reports its own in struct ivshmem_info. From
 * version 1 on, what a program was compiled for goes on to work: calls,
 * fields and flags are added and never change, and those that are not there
 * yet are refused.
 */
#define IVSHMEM_ABI_VERSION		1

/* ioctl "magic" of the device file and of channel descriptors. */
#define IVSHMEM_IOC_MAGIC		0xE9

/*
 * Deadlines are absolute CLOCK_MONOTONIC times in nanoseconds. Two values are
 * special.
 */
#define IVSHMEM_DEADLINE_NOW		((__u64)0)	/* do not wait */
#define IVSHMEM_DEADLINE_NEVER		(~(__u64)0)	/* wait without limit */

/* ------------------------------------------------------------------ info -- */

/* How the driver learns of doorbells and state changes. */
enum ivshmem_interrupt_mode {
	IVSHMEM_INTERRUPT_MSIX		= 1,	/* message-signalled, one per vector */
	IVSHMEM_INTERRUPT_INTX		= 2,	/* one line, perhaps shared with neighbours */
	IVSHMEM_INTERRUPT_POLLING	= 3,	/* none: state changes only, by timer */
};

/* What this peer can do with a section. */
#define IVSHMEM_SECTION_READ		(1U << 0)	/* read, pread */
#define IVSHMEM_SECTION_WRITE		(1U << 1)	/* write, pwrite */
#define IVSHMEM_SECTION_MMAP		(1U << 2)	/* begins and ends on a page boundary */

/**
 * struct ivshmem_section - a part of the shared memory region
 * @offset: where it begins in the file, in bytes
 * @size: its size in bytes; 0 if the link has no such section
 * @flags: IVSHMEM_SECTION_*; without IVSHMEM_SECTION_MMAP the section is smaller
 *	than a page of this kernel, or begins inside one, and only read and write
 *	reach it
 * @reserved: 0
 */
struct ivshmem_section {
	__aligned_u64 offset;
	__aligned_u64 size;
	__u32 flags;
	__u32 reserved;
};

/**
 * struct ivshmem_info - what the device is (IVSHMEM_IOC_INFO)
 * @abi_version: IVSHMEM_ABI_VERSION of the driver
 * @id: this peer's ID, 0 .. @max_peers - 1
 * @max_peers: number of peers that the link has room for, this one included
 * @vectors: number of vectors that each peer of the link has; a doorbell takes
 *	0 .. @vectors - 1. Vector 0 also announces state changes.
 * @vectors_enabled: how many of its own vectors the driver has got, 64 at most, and
 *	none in polling mode.
 *	Doorbells that peers ring on the others are lost.
 * @interrupt_mode: enum ivshmem_interrupt_mode
 * @protocol: what runs on the link, from the PCI class code: 0 = undefined,
 *	0x4000 .. 0x7fff = user-defined
 * @reserved: 0
 * @region_size: size of the whole region, in bytes
 * @state_table: state table, read-only
 * @rw: read/write section, writable by every peer
 * @outputs: the output sections of all peers, read-only but for @output. Peer
 *	p's begins at @outputs.offset + p * @output.size.
 * @output: this peer's own output section
 *
 * All of it is constant as long as the file is open.
 */
struct ivshmem_info {
	__u32 abi_version;
	__u32 id;
	__u32 max_peers;
	__u32 vectors;
	__u32 vectors_enabled;
	__u32 interrupt_mode;
	__u32 protocol;
	__u32 reserved;
	__aligned_u64 region_size;
	struct ivshmem_section state_table;
	struct ivshmem_section rw;
	struct ivshmem_section outputs;
	struct ivshmem_section output;
};

/* ----------------------------------------------------------------- state -- */

/*
 * Flags of IVSHMEM_IOC_SET_STATE.
 *
 * TAKE_OVER	own the state even if another file does; that file then gets EBUSY
 * KEEP		leave the value in place when this file is closed; without it the
 *		state returns to 0 then (also when the process dies)
 */
#define IVSHMEM_STATE_TAKE_OVER		(1U << 0)
#define IVSHMEM_STATE_KEEP		(1U << 1)

/**
 * struct ivshmem_state - a peer's state
 * @peer: peer ID; for IVSHMEM_IOC_SET_STATE this peer's own
 * @value: the state. 0 means absent; the meaning of others is up to the peers.
 * @flags: IVSHMEM_STATE_* for IVSHMEM_IOC_SET_STATE, 0 for IVSHMEM_IOC_GET_STATE
 * @reserved: 0
 *
 * IVSHMEM_IOC_GET_STATE reads the state of @peer from the state table into
 * @value; with IVSHMEM_INTERRUPT_INTX this peer's own is what was last published,
 * as it is for read and pread. ENXIO: @peer >= max_peers.
 *
 * IVSHMEM_IOC_SET_STATE publishes @value as this peer's state; if that changes
 * it, every other peer is interrupted on its vector 0. The first file that
 * publishes owns the state until it is closed for good (the last duplicate of
 * the descriptor, in whatever process or on its way through a socket, and the
 * last mapping made from it). EBUSY: another file owns it, and
 * IVSHMEM_STATE_TAKE_OVER was not given, or a channel is open. ENXIO: @peer is not
 * this peer's own ID.
 *
 * While the machine sleeps, and once it shuts down, peers see the state as 0.
 */
struct ivshmem_state {
	__u32 peer;
	__u32 value;
	__u32 flags;
	__u32 reserved;
};

/* -------------------------------------------------------------- doorbell -- */

/**
 * struct ivshmem_doorbell - interrupt a peer (IVSHMEM_IOC_DOORBELL)
 * @peer: peer ID; this peer's own ID is allowed and interrupts itself
 * @vector: 0 .. vectors - 1
 * @flags: 0
 * @reserved: 0
 *
 * All that this program wrote to the region before is visible to the peer when
 * the interrupt arrives. Nothing tells whether a peer is there or takes
 * interrupts: a doorbell that nobody waits for is lost.
 *
 * ENXIO: no such peer or no such vector on this link.
 */
struct ivshmem_doorbell {
	__u32 peer;
	__u32 vector;
	__u32 flags;
	__u32 reserved;
};

/* ---------------------------------------------------------------- events -- */

/* What an event tells of. */
enum ivshmem_event_kind {
	IVSHMEM_EVENT_DOORBELL		= 1,	/* interrupts on a vector */
	IVSHMEM_EVENT_STATE		= 2,	/* the state of another peer changed */
};

/*
 * Flags of an event.
 *
 * MAY_HAVE_LOST	doorbell: there was a time since the last fetch in which the
 *			device could not interrupt (it was throttled, the machine
 *			slept, a CPU went offline), or a state changed and no
 *			interrupt told of it: there may have been more than is
 *			counted, also where @count is 0. Look at the shared
 *			memory, as after every event. Vectors that are not
 *			enabled are not told of: none is while polling.
 */
#define IVSHMEM_EVENT_MAY_HAVE_LOST	(1U << 0)

/**
 * struct ivshmem_event - what happened to one vector or one peer
 * @kind: enum ivshmem_event_kind
 * @index: vector (doorbell) or peer ID (state)
 * @flags: IVSHMEM_EVENT_*
 * @old_state: state: value at this file's previous event of that peer, or at open
 * @new_state: state: value now
 * @reserved: 0
 * @count: doorbell: interrupts taken on the vector since this file's previous
 *	event of it. Doorbells that follow each other closely may merge into one
 *	interrupt: at least 1 for any number of them, never more than were rung. A
 *	state change of a peer is an interrupt on vector 0 as well and counts
 *	there. On a shared INTx line a neighbour's interrupts may be counted too.
 * @changes: state: how many changes were seen since then. A peer that went
 *	from 5 to 0 and back to 5 gives 2 changes with @old_state equal to @new_state;
 *	changes that follow each other closely may be seen as fewer.
 * @time: CLOCK_MONOTONIC time in nanoseconds at which the last of them was seen
 */
struct ivshmem_event {
	__u32 kind;
	__u32 index;
	__u32 flags;
	__u32 old_state;
	__u32 new_state;
	__u32 reserved;
	__aligned_u64 count;
	__aligned_u64 changes;
	__aligned_u64 time;
};

/**
 * struct ivshmem_events - fetch events, or wait for some (IVSHMEM_IOC_EVENTS)
 * @records: in: address of an array of struct ivshmem_event
 * @capacity: in: length of the array; 1 or more (EINVAL)
 * @count: out: number of records stored, 1 or more; undefined when the call fails
 * @record_size: in: sizeof(struct ivshmem_event) as the program knows it, a multiple
 *	of 8 not below the first version's 48 and not above 4096 (EINVAL). The
 *	driver stores records of that size.
 * @flags: in: 0
 * @deadline: in: until when to wait if there is nothing yet
 *
 * Stores one record for each vector with unseen interrupts and one for each
 * other peer with unseen state changes, and marks them as seen for this file. What
 * does not fit into @capacity stays for the next call. State changes come first,
 * unless they left no room for doorbells in the call before. A file sees what
 * happened after it was opened.
 *
 *   EOPNOTSUPP	the driver is polling (IVSHMEM_INTERRUPT_POLLING), the file is
 *		subscribed to no other peer's state, and there is a time to wait for:
 *		doorbells are never heard
 *   EAGAIN	nothing yet, and @deadline is IVSHMEM_DEADLINE_NOW or the file is
 *		open with O_NONBLOCK
 *   ETIMEDOUT	nothing until @deadline
 *   EINTR	a signal came first (the call is restarted where SA_RESTART says so;
 *		the deadline, being absolute, stays right), or while other threads
 *		took the events of this file
 *   EFAULT	a record could not be stored; nothing is marked as seen
 */
struct ivshmem_events {
	__aligned_u64 records;
	__u32 capacity;
	__u32 count;
	__u32 record_size;
	__u32 flags;
	__aligned_u64 deadline;
};

/* Every index of a kind: all vectors, or all peers. */
#define IVSHMEM_INDEX_ALL		0xffffffffU

/*
 * Flags of IVSHMEM_IOC_SUBSCRIBE.
 *
 * OFF		do not report these events to this file, instead of doing so
 */
#define IVSHMEM_SUBSCRIBE_OFF		(1U << 0)

/**
 * struct ivshmem_subscribe - which events a file wants (IVSHMEM_IOC_SUBSCRIBE)
 * @kind: enum ivshmem_event_kind
 * @index: vector or peer ID, or IVSHMEM_INDEX_ALL
 * @flags: IVSHMEM_SUBSCRIBE_*
 * @reserved: 0
 *
 * A newly opened file is subscribed to everything. An event that a file is not
 * subscribed to does not wake it; what happened while it was not is not
 * reported later.
 *
 * ENXIO: no such peer, or not one of the vectors_enabled vectors.
 */
struct ivshmem_subscribe {
	__u32 kind;
	__u32 index;
	__u32 flags;
	__u32 reserved;
};

/**
 * struct ivshmem_eventfd - be told through an eventfd (IVSHMEM_IOC_EVENTFD)
 * @kind: enum ivshmem_event_kind
 * @index: vector, or IVSHMEM_INDEX_ALL (the only value for states)
 * @fd: eventfd to add 1 to at each interrupt on the vector, or at each change of a
 *	state; -1 takes the present one off
 * @flags: 0
 *
 * A file has at most one eventfd for each of them; another one replaces it. They belong
 * to the open file and go with it, and subscriptions do not change them. When the
 * device goes, each is counted up a last time. One for vectors is counted up also when
 * interrupts may have been lost, as IVSHMEM_EVENT_MAY_HAVE_LOST tells.
 *
 * EBADF or EINVAL: @fd is not an eventfd. ENXIO: not one of the vectors_enabled
 * vectors, or a single peer. ENOSPC: the device has 1024 already, of all files
 * together.
 */
struct ivshmem_eventfd {
	__u32 kind;
	__u32 index;
	__s32 fd;
	__u32 flags;
};

/* -------------------------------------------------------------- channels -- */

/*
 * A channel joins this peer and another one. Its descriptor, of which
 * IVSHMEM_IOC_CONNECT returns a new one, carries messages:
 *
 *   write	sends one message: all bytes of one call, also of writev. Waits for
 *		the peer to connect, and for room.
 *	EINVAL	nothing to send (but writev of no bytes at all is 0: the kernel does
 *		not ask the driver then)
 *	EMSGSIZE	longer than @max_message of the status
 *	EPIPE	the peer has closed its end (there is no signal)
 *   read	receives one message. 0: the peer has closed its end, and everything it
 *		had sent has been received.
 *	EINVAL	no buffer (readv of no bytes at all is 0, likewise, and no end)
 *	EMSGSIZE	the buffer is smaller than the message, which stays; FIONREAD
 *		tells its size
 *   poll	EPOLLIN | EPOLLRDNORM	a message, or the end
 *		EPOLLOUT | EPOLLWRNORM	the peer is there, and there is room for half
 *				of the ring and for the message that last
 *				found none
 *		EPOLLRDHUP	the peer has closed its end
 *		EPOLLHUP | EPOLLERR	the session has ended
 *   fsync	waits until the peer has confirmed all that was sent. EPIPE: it has
 *		closed its end before that.
 *   ioctl	IVSHMEM_CHANNEL_IOC_*, and FIONREAD: size of the next message in bytes,
 *		0 if there is none yet
 *   close	the peer receives what was sent, and then the end
 *   lseek, pread, pwrite	ESPIPE
 *
 * A sender waits, too, if 2^31 of its messages are not confirmed, however much room
 * there is: EPOLLOUT is not reported then, until enough of them are.
 *
 * What would wait fails with EAGAIN on a descriptor with O_NONBLOCK (but for
 * fsync), and EINTR when a signal comes first. A write that finds no room waits until there is
 * for half of the ring or for the message, whichever is more.
 *
 * A message is confirmed to its sender when a read has returned it, or, with
 * IVSHMEM_CONNECT_EXPLICIT_ACK on the receiver's side, when
 * IVSHMEM_CHANNEL_IOC_ACK says so.
 *
 * A descriptor is one session. It ends for good when the peer starts another one or goes
 * away without closing (ECONNRESET), breaks the protocol (EPROTO), or the device goes
 * (ENODEV): that is what every call says then which sends, receives, waits or
 * acknowledges, unless its arguments alone are wrong: EINVAL for a number that was
 * never sent or read, EMSGSIZE for more than @max_message, come first.
 * IVSHMEM_CHANNEL_IOC_STATUS still tells how far the session had come, and
 * IVSHMEM_CHANNEL_IOC_EVENTFD (without the device ENODEV) still succeeds, and counts
 * the eventfd up at once. Connect again for the next session, before the descriptor is
 * closed or afterwards. What had been sent in a session and not received is not received
 * in another.
 *
 * While a channel is open, the driver owns this peer's state and its output
 * section: EBUSY for IVSHMEM_IOC_SET_STATE, for write and pwrite into the section,
 * and for mappings of it with PROT_WRITE. The state is 1 then, also
 * while the machine sleeps, and 0 afterwards.
 */

/*
 * Flags of IVSHMEM_IOC_CONNECT.
 *
 * EXPLICIT_ACK	a message counts as received when IVSHMEM_CHANNEL_IOC_ACK says so,
 *		not when read() has returned it
 * NONBLOCK	as if O_NONBLOCK had been set on the new descriptor
 */
#define IVSHMEM_CONNECT_EXPLICIT_ACK	(1U << 0)
#define IVSHMEM_CONNECT_NONBLOCK	(1U << 1)

/**
 * struct ivshmem_connect - open a channel to a peer (IVSHMEM_IOC_CONNECT)
 * @peer: the other end
 * @port: which of the channels between the two; 0 in this version
 * @flags: IVSHMEM_CONNECT_*
 * @reserved: 0
 *
 * Returns a new close-on-exec descriptor. Does not wait for the peer: poll reports
 * EPOLLOUT on the descriptor when the link is up. The file must be open for reading and
 * writing (EBADF).
 *
 *   EBUSY	the channel is open already (also in another process) and its session
 *		has not ended, or a program owns the state or has mapped the output
 *		section with PROT_WRITE
 *   ENXIO	no such peer or port, or own ID
 *   EOPNOTSUPP	the output sections of this link are too small, or there are none
 *   EMFILE, ENFILE, ENOMEM
 */
struct ivshmem_connect {
	__u32 peer;
	__u32 port;
	__u32 flags;
	__u32 reserved;
};

/* State of a channel's session. */
enum ivshmem_channel_link {
	IVSHMEM_CHANNEL_WAITING		= 1,	/* the peer is not there yet */
	IVSHMEM_CHANNEL_UP		= 2,
	IVSHMEM_CHANNEL_CLOSING		= 3,	/* the peer has closed; drain, then end of file */
	IVSHMEM_CHANNEL_RESET		= 4,	/* the peer restarted: ECONNRESET for good */
	IVSHMEM_CHANNEL_BROKEN		= 5,	/* the peer broke the protocol: EPROTO for good */
	IVSHMEM_CHANNEL_GONE		= 6,	/* the device is gone: ENODEV for good */
};

/**
 * struct ivshmem_channel_status - how a channel stands (IVSHMEM_CHANNEL_IOC_STATUS)
 * @link: enum ivshmem_channel_link
 * @max_message: largest message in bytes that this link can carry
 * @sent: messages written in this session
 * @confirmed: of these, how many the peer has confirmed
 * @received: messages read in this session
 * @acknowledged: of these, how many were acknowledged to the peer
 *
 * Messages are numbered from 1 in each direction, so @sent is also the number of the
 * last message sent. The status stays readable after the session's end.
 */
struct ivshmem_channel_status {
	__u32 link;
	__u32 max_message;
	__aligned_u64 sent;
	__aligned_u64 confirmed;
	__aligned_u64 received;
	__aligned_u64 acknowledged;
};

/**
 * struct ivshmem_channel_ack - acknowledge messages (IVSHMEM_CHANNEL_IOC_ACK)
 * @number: all messages up to this one have been dealt with
 * @flags: 0
 * @reserved: 0
 *
 * Acknowledging less than before changes nothing.
 *
 * EINVAL: not a channel with IVSHMEM_CONNECT_EXPLICIT_ACK, or @number is beyond the
 * last message read.
 */
struct ivshmem_channel_ack {
	__aligned_u64 number;
	__u32 flags;
	__u32 reserved;
};

/**
 * struct ivshmem_channel_wait - wait for confirmation (IVSHMEM_CHANNEL_IOC_WAIT)
 * @number: return when the peer has confirmed all messages up to this one
 * @deadline: until when to wait
 * @confirmed: out: how many it has confirmed, also when the call fails
 * @flags: 0
 * @reserved: 0
 *
 * EINVAL: @number is beyond the last message sent, also when the session has ended. EAGAIN, ETIMEDOUT, EINTR as with
 * IVSHMEM_IOC_EVENTS. EPIPE: the peer has closed its end before that. ECONNRESET,
 * EPROTO, ENODEV: the session has ended.
 */
struct ivshmem_channel_wait {
	__aligned_u64 number;
	__aligned_u64 deadline;
	__aligned_u64 confirmed;
	__u32 flags;
	__u32 reserved;
};

/**
 * struct ivshmem_channel_eventfd - be told of confirmations
 *	(IVSHMEM_CHANNEL_IOC_EVENTFD)
 * @fd: eventfd to add 1 to whenever messages are confirmed, and when no more will be:
 *	the peer has closed its end, or the session has ended; -1 takes the present one
 *	off
 * @flags: 0
 *
 * Confirmations that follow each other closely may add 1 together: the status tells how
 * many there are, and how the link is. An end that has come before is told at once.
 *
 * EBADF or EINVAL: @fd is not an eventfd. ENODEV.
 */
struct ivshmem_channel_eventfd {
	__s32 fd;
	__u32 flags;
};

/* ------------------------------------------------------------------ calls -- */

/* On /dev/ivshmemN. */
#define IVSHMEM_IOC_INFO	_IOR(IVSHMEM_IOC_MAGIC, 0x00, struct ivshmem_info)
#define IVSHMEM_IOC_GET_STATE	_IOWR(IVSHMEM_IOC_MAGIC, 0x01, struct ivshmem_state)
#define IVSHMEM_IOC_SET_STATE	_IOW(IVSHMEM_IOC_MAGIC, 0x02, struct ivshmem_state)
#define IVSHMEM_IOC_DOORBELL	_IOW(IVSHMEM_IOC_MAGIC, 0x03, struct ivshmem_doorbell)
#define IVSHMEM_IOC_EVENTS	_IOWR(IVSHMEM_IOC_MAGIC, 0x04, struct ivshmem_events)
#define IVSHMEM_IOC_SUBSCRIBE	_IOW(IVSHMEM_IOC_MAGIC, 0x05, struct ivshmem_subscribe)
#define IVSHMEM_IOC_EVENTFD	_IOW(IVSHMEM_IOC_MAGIC, 0x06, struct ivshmem_eventfd)
#define IVSHMEM_IOC_CONNECT	_IOW(IVSHMEM_IOC_MAGIC, 0x07, struct ivshmem_connect)

/* On the descriptor of a channel. FIONREAD tells the size of the next message. */
#define IVSHMEM_CHANNEL_IOC_STATUS	_IOR(IVSHMEM_IOC_MAGIC, 0x40, struct ivshmem_channel_status)
#define IVSHMEM_CHANNEL_IOC_ACK		_IOW(IVSHMEM_IOC_MAGIC, 0x41, struct ivshmem_channel_ack)
#define IVSHMEM_CHANNEL_IOC_WAIT	_IOWR(IVSHMEM_IOC_MAGIC, 0x42, struct ivshmem_channel_wait)
#define IVSHMEM_CHANNEL_IOC_EVENTFD	_IOW(IVSHMEM_IOC_MAGIC, 0x43, struct ivshmem_channel_eventfd)

#endif /* _LINUX_IVSHMEM_H */
