// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which function of a guest's kernel an address belongs to, and what that function is for.

/// The address that stands for all programs, as in `rust/profiler`.
const PROGRAMS: u64 = 0;

/// What functions are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    /// Not the kernel's.
    Program,
    /// From the instruction of a system call to the file's operation, and back.
    Call,
    /// Our module's.
    Module,
    /// Copies between programs and the rings.
    Copy,
    /// Locks, RCU.
    Lock,
    /// Sleeping, waking, choosing who runs.
    Schedule,
    /// Interrupts and timers.
    Interrupt,
    /// Accesses to registers of devices and of the interrupt controller, which QEMU carries out.
    Register,
    /// Waiting for an interrupt.
    Idle,
    /// All else.
    Rest,
}

impl Group {
    /// What it is, in words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Program => "programs",
            Self::Call => "system call",
            Self::Module => "the module",
            Self::Copy => "copying",
            Self::Lock => "locks",
            Self::Schedule => "scheduler",
            Self::Interrupt => "interrupts",
            Self::Register => "registers",
            Self::Idle => "waiting",
            Self::Rest => "other kernel",
        }
    }
}

/// All of them.
pub(super) const ALL: [Group; 10] = [
    Group::Program,
    Group::Call,
    Group::Module,
    Group::Copy,
    Group::Lock,
    Group::Schedule,
    Group::Interrupt,
    Group::Register,
    Group::Idle,
    Group::Rest,
];

/// A function's beginning.
#[derive(Debug)]
struct Symbol {
    address: u64,
    name: String,
    module: Option<String>,
}

/// Functions by their addresses.
#[derive(Debug)]
pub(super) struct Symbols(Vec<Symbol>);

impl Symbols {
    /// Reads lines of /proc/kallsyms, `ADDRESS TYPE NAME [MODULE]`.
    pub(super) fn read(text: &str) -> Self {
        let mut symbols: Vec<Symbol> = text.lines().filter_map(symbol).collect();
        symbols.sort_by_key(|symbol| symbol.address);
        Self(symbols)
    }

    /// The name of the function at `address`, and what it is for.
    pub(super) fn find(&self, address: u64) -> (String, Group) {
        if address == PROGRAMS {
            return ("(programs)".into(), Group::Program);
        }
        let behind = self.0.partition_point(|symbol| symbol.address <= address);
        let Some(symbol) = behind.checked_sub(1).and_then(|index| self.0.get(index)) else {
            return (format!("{address:#x}"), Group::Rest);
        };
        let name = match &symbol.module {
            Some(module) => format!("{} [{module}]", short(&symbol.name)),
            None => short(&symbol.name),
        };
        (name, group(symbol))
    }
}

fn symbol(line: &str) -> Option<Symbol> {
    let mut words = line.split_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let name = words.nth(1)?.into();
    let module = words
        .next()
        .map(|word| word.trim_matches(['[', ']']).into());
    Some(Symbol {
        address,
        name,
        module,
    })
}

/// The name without the paths that lead to types and functions of Rust.
fn short(name: &str) -> String {
    let name = format!("{:#}", rustc_demangle::demangle(name));
    let mut text = String::new();
    let mut rest = name.as_str();
    while let Some(letter) = rest.chars().next() {
        let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
        let end = rest.find(|letter| !is_word(letter)).unwrap_or(rest.len());
        let behind = rest[end..].strip_prefix("::");
        if let Some(behind) = behind.filter(|behind| end > 0 && behind.starts_with(is_word)) {
            rest = behind;
        } else {
            let length = end.max(letter.len_utf8());
            text += &rest[..length];
            rest = &rest[length..];
        }
    }
    text
}

/// Beginnings of names, and what such functions are for; the first that fits counts.
const GROUPS: &[(&str, Group)] = &[
    ("pv_native_safe_halt", Group::Idle),
    ("default_idle", Group::Idle),
    ("do_idle", Group::Idle),
    ("cpuidle", Group::Idle),
    ("cpu_startup_entry", Group::Idle),
    ("arch_cpu_idle", Group::Idle),
    ("rust_helper_writel", Group::Register),
    ("rust_helper_readl", Group::Register),
    ("iowrite", Group::Register),
    ("ioread", Group::Register),
    ("io_serial", Group::Register),
    ("default_send_IPI", Group::Register),
    ("native_apic", Group::Register),
    ("native_queued_spin", Group::Lock),
    ("rust_helper_spin", Group::Lock),
    ("rust_helper_srcu", Group::Lock),
    ("rust_helper_rcu", Group::Lock),
    ("common_file_perm", Group::Call),
    ("bpf_lsm_file", Group::Call),
    ("fpregs_assert", Group::Call),
    // Of the stack's offset, at each call.
    ("prandom_u32_state", Group::Call),
    ("native_sched_clock", Group::Schedule),
    ("__dequeue", Group::Schedule),
    ("__enqueue", Group::Schedule),
    ("_copy_", Group::Copy),
    ("copy_", Group::Copy),
    ("rep_movs", Group::Copy),
    ("memcpy", Group::Copy),
    ("iov_iter", Group::Call),
    ("_raw_spin", Group::Lock),
    ("__srcu", Group::Lock),
    ("srcu", Group::Lock),
    ("mutex", Group::Lock),
    ("rcu", Group::Lock),
    ("__rcu", Group::Lock),
    ("spin_", Group::Lock),
    ("entry_SYSCALL", Group::Call),
    ("syscall", Group::Call),
    ("__x64_sys", Group::Call),
    ("x64_sys", Group::Call),
    ("do_syscall", Group::Call),
    ("ksys_", Group::Call),
    ("vfs_", Group::Call),
    ("rw_verify", Group::Call),
    ("new_sync", Group::Call),
    ("fdget", Group::Call),
    ("__fdget", Group::Call),
    ("fput", Group::Call),
    ("__fget", Group::Call),
    ("security_", Group::Call),
    ("apparmor", Group::Call),
    ("aa_", Group::Call),
    ("fsnotify", Group::Call),
    ("__fsnotify", Group::Call),
    ("write_null", Group::Call),
    ("import_ubuf", Group::Call),
    ("schedule", Group::Schedule),
    ("__schedule", Group::Schedule),
    ("try_to_wake", Group::Schedule),
    ("ttwu", Group::Schedule),
    ("wake", Group::Schedule),
    ("__wake", Group::Schedule),
    ("default_wake", Group::Schedule),
    ("autoremove_wake", Group::Schedule),
    ("prepare_to_wait", Group::Schedule),
    ("finish_", Group::Schedule),
    ("init_wait", Group::Schedule),
    ("enqueue", Group::Schedule),
    ("dequeue", Group::Schedule),
    ("pick_", Group::Schedule),
    ("__pick_", Group::Schedule),
    ("put_prev", Group::Schedule),
    ("set_next", Group::Schedule),
    ("update_", Group::Schedule),
    ("__update_", Group::Schedule),
    ("select_", Group::Schedule),
    ("sched_", Group::Schedule),
    ("resched", Group::Schedule),
    ("__switch_to", Group::Schedule),
    ("switch_", Group::Schedule),
    ("psi_", Group::Schedule),
    ("place_entity", Group::Schedule),
    ("reweight", Group::Schedule),
    ("newidle", Group::Schedule),
    ("asm_", Group::Interrupt),
    ("sysvec", Group::Interrupt),
    ("__sysvec", Group::Interrupt),
    ("common_interrupt", Group::Interrupt),
    ("__common_interrupt", Group::Interrupt),
    ("irq", Group::Interrupt),
    ("__irq", Group::Interrupt),
    ("handle_", Group::Interrupt),
    ("__handle_", Group::Interrupt),
    ("error_", Group::Interrupt),
    ("x2apic", Group::Interrupt),
    ("tick_", Group::Interrupt),
    ("hrtimer", Group::Interrupt),
    ("__hrtimer", Group::Interrupt),
    ("clockevents", Group::Interrupt),
    ("timer", Group::Interrupt),
    ("ktime_", Group::Interrupt),
    ("restore_regs", Group::Interrupt),
    ("common_interrupt_return", Group::Interrupt),
    ("handle_softirqs", Group::Interrupt),
];

fn group(symbol: &Symbol) -> Group {
    match symbol.module.as_deref() {
        Some("ivshmem") => return Group::Module,
        Some(_) => return Group::Rest,
        None => {}
    }
    let fits = |&&(begin, _): &&(&str, Group)| symbol.name.starts_with(begin);
    GROUPS
        .iter()
        .find(fits)
        .map_or(Group::Rest, |&(_, group)| group)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KALLSYMS: &str = "ffffffff81000200 t try_to_wake_up\nffffffff81000000 T vfs_write\n\
                            ffffffffc0000000 t f\t[ivshmem]\nffffffffc0001000 t f\t[virtio_net]\n";

    #[test]
    fn an_address_is_in_the_function_that_begins_before_it() {
        let symbols = Symbols::read(KALLSYMS);
        let find = |address| symbols.find(address);
        assert_eq!(
            find(0xffff_ffff_8100_01ff),
            ("vfs_write".into(), Group::Call)
        );
        assert_eq!(
            find(0xffff_ffff_8100_0200),
            ("try_to_wake_up".into(), Group::Schedule)
        );
        assert_eq!(
            find(0xffff_ffff_c000_0004),
            ("f [ivshmem]".into(), Group::Module)
        );
        assert_eq!(
            find(0xffff_ffff_c000_1004),
            ("f [virtio_net]".into(), Group::Rest)
        );
        assert_eq!(find(0), ("(programs)".into(), Group::Program));
        assert_eq!(
            find(0xffff_8000_0000_0000),
            ("0xffff800000000000".into(), Group::Rest)
        );
    }

    #[test]
    fn paths_of_rust_are_left_out() {
        assert_eq!(short("vfs_write"), "vfs_write");
        let name = "_RNvMNtCs4hxruBls6vc_12ivshmem_main8channelsNtB2_8Channels7connect";
        assert_eq!(short(name), "<Channels>::connect");
    }
}
