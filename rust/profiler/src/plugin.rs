// SPDX-License-Identifier: MIT OR Apache-2.0
//! QEMU's side: the functions of its plugin interface that are used here, and those that it calls. All that
//! is unsafe in this crate.
#![allow(unsafe_code)]

use crate::counts::Counts;
use crate::{lock, serve, socket, Place, Shared, PERIOD, PROGRAMS};
use std::ffi::{c_char, c_int, c_uint, c_void, CStr};
use std::os::unix::net::UnixListener;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

/// The version of the interface that the declarations below are of: QEMU 11.1 has it. One that does not
/// refuses the plugin, and says so.
#[export_name = "qemu_plugin_version"]
static VERSION: c_int = 7;

/// Addresses below are those of programs.
const KERNEL: u64 = 1 << 63;

/// Words in one scoreboard.
const WORDS: usize = 4096;

/// Operations of [`qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu`].
const ADD: c_int = 0;
const STORE: c_int = 1;

/// A table with an entry for each processor.
#[repr(C)]
struct Scoreboard {
    _opaque: [u8; 0],
}

/// A block that is being translated.
#[repr(C)]
struct Block {
    _opaque: [u8; 0],
}

/// A word in each entry of a scoreboard.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Word {
    scoreboard: *mut Scoreboard,
    offset: usize,
}

// SAFETY: Scoreboards are never freed here, and QEMU's functions for them may be called by any thread. QEMU moves
// one when a guest gets more than 16 processors, which those profiled have not.
unsafe impl Send for Word {}

// SAFETY: As above.
unsafe impl Sync for Word {}

type Translated = unsafe extern "C" fn(block: *mut Block, data: *mut c_void);

// SAFETY: These are the signatures of QEMU's qemu-plugin.h.
unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, callback: Translated, data: *mut c_void);
    fn qemu_plugin_tb_vaddr(block: *const Block) -> u64;
    fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    fn qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
        block: *mut Block,
        operation: c_int,
        word: Word,
        value: u64,
    );
    fn qemu_plugin_scoreboard_new(size: usize) -> *mut Scoreboard;
    fn qemu_plugin_u64_sum(word: Word) -> u64;
    fn qemu_plugin_u64_get(word: Word, processor: c_uint) -> u64;
    fn qemu_plugin_num_vcpus() -> c_int;
}

impl Place for Word {
    fn sum(self) -> u64 {
        // SAFETY: The word is one of a scoreboard that there is.
        unsafe { qemu_plugin_u64_sum(self) }
    }
}

/// Words that are still free.
struct Free(Option<Word>);

impl Free {
    /// A word for each processor, which is 0.
    fn take(&mut self) -> Word {
        let word = self.0.unwrap_or_else(|| Word {
            // SAFETY: Has no preconditions; the words of a new one are 0.
            scoreboard: unsafe { qemu_plugin_scoreboard_new(WORDS * size_of::<u64>()) },
            offset: 0,
        });
        let offset = word.offset + size_of::<u64>();
        self.0 = (offset < WORDS * size_of::<u64>()).then_some(Word { offset, ..word });
        word
    }
}

/// What the plugin knows.
struct Plugin {
    counts: Shared<Word>,
    free: Mutex<Free>,
    /// The number of the block that each processor is in.
    current: Word,
}

static PLUGIN: OnceLock<Plugin> = OnceLock::new();

/// Called by QEMU for each block that it translates, on any thread.
unsafe extern "C" fn translated(block: *mut Block, _data: *mut c_void) {
    let Some(plugin) = PLUGIN.get() else { return };
    // SAFETY: QEMU says what the block is; it is valid for the call.
    let (address, length) = unsafe { (qemu_plugin_tb_vaddr(block), qemu_plugin_tb_n_insns(block)) };
    let address = if address < KERNEL { PROGRAMS } else { address };
    let new = || {
        let mut free = plugin.free.lock();
        free.as_mut()
            .map_or_else(|error| error.get_mut().take(), |free| free.take())
    };
    let (number, place) = lock(&plugin.counts).number(address, new);
    // SAFETY: The block is valid for the call, the words for ever.
    unsafe {
        qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(block, STORE, plugin.current, number);
        qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(block, ADD, place, length as u64);
    }
}

/// The block that each processor is in.
fn current(word: Word) -> Vec<u64> {
    // SAFETY: Has no preconditions.
    let count = unsafe { qemu_plugin_num_vcpus() };
    let processors = 0..c_uint::try_from(count).unwrap_or(0);
    let block = |processor| {
        // SAFETY: There are so many processors.
        unsafe { qemu_plugin_u64_get(word, processor) }
    };
    processors.map(block).collect()
}

/// Called by QEMU once, when it has loaded the plugin. Not 0 makes it end.
///
/// # Safety
///
/// `arguments` must be `count` strings that live as long as the plugin.
#[export_name = "qemu_plugin_install"]
unsafe extern "C" fn install(
    id: u64,
    _info: *const u8,
    count: c_int,
    arguments: *const *const c_char,
) -> c_int {
    let count = usize::try_from(count).unwrap_or(0);
    let argument = |index| {
        // SAFETY: As the caller says.
        unsafe { CStr::from_ptr(*arguments.add(index)) }
    };
    let arguments: Vec<&CStr> = (0..count).map(argument).collect();
    let Some(socket) = socket(&arguments) else {
        eprintln!("ivshmem-profiler: the one argument is socket=PATH");
        return 1;
    };
    let listener = match UnixListener::bind(&socket) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("ivshmem-profiler: {}: {error}", socket.display());
            return 1;
        }
    };
    let mut free = Free(None);
    let current_block = free.take();
    let counts: Shared<Word> = Arc::new(Mutex::new(Counts::default()));
    let plugin = Plugin {
        counts: Arc::clone(&counts),
        free: Mutex::new(free),
        current: current_block,
    };
    if PLUGIN.set(plugin).is_err() {
        eprintln!("ivshmem-profiler: it is there already");
        return 1;
    }
    let sampled = Arc::clone(&counts);
    thread::spawn(move || loop {
        thread::sleep(PERIOD);
        lock(&sampled).found(&current(current_block));
    });
    thread::spawn(move || serve(&counts, &listener));
    // SAFETY: The callback stays, as the plugin is never unloaded.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, translated, null_mut()) };
    0
}
