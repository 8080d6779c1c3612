//! The filter of containers that ask for `RuntimeDefault`: what Docker's and containerd's default profiles
//! allow is allowed, everything else gets "operation not permitted".
//!
//! It is an allow-list in effect: a call whose name is not in our table is refused. Programs of a foreign
//! architecture (32-bit x86) are killed.

use std::collections::BTreeMap;

use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule};

use super::{Filter, compile, table, target};
use crate::capabilities::bit;

/// Refused whatever the capabilities are: the kernel's keyring, other processes' memory, io_uring, swap,
/// booting another kernel, and calls that nothing uses any more.
const REFUSED: &[&str] = &[
    "_sysctl",
    "add_key",
    "afs_syscall",
    "epoll_ctl_old",
    "epoll_wait_old",
    "getpmsg",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "migrate_pages",
    "move_pages",
    "nfsservctl",
    "pivot_root",
    "putpmsg",
    "request_key",
    "security",
    "swapoff",
    "swapon",
    "sysfs",
    "tuxcall",
    "userfaultfd",
    "uselib",
    "ustat",
    "vserver",
    "statmount",
    "listmount",
    "lsm_get_self_attr",
    "lsm_set_self_attr",
    "lsm_list_modules",
    "open_tree_attr",
];

/// Allowed with any of the capabilities.
const GATED: &[(&[&str], &[&str])] = &[
    (&["DAC_READ_SEARCH"], &["open_by_handle_at"]),
    (
        &["SYS_ADMIN"],
        &[
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "umount2",
            "unshare",
        ],
    ),
    (&["SYS_ADMIN", "BPF"], &["bpf"]),
    (&["SYS_ADMIN", "PERFMON"], &["perf_event_open"]),
    (&["SYS_ADMIN", "SYSLOG"], &["syslog"]),
    (&["SYS_BOOT"], &["reboot"]),
    (&["SYS_CHROOT"], &["chroot"]),
    (&["SYS_MODULE"], &["delete_module", "finit_module", "init_module"]),
    (&["SYS_PACCT"], &["acct"]),
    (&["SYS_PTRACE"], &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev"]),
    (&["SYS_RAWIO"], &["ioperm", "iopl"]),
    (&["SYS_TIME"], &["clock_settime", "settimeofday"]),
    (&["SYS_TTY_CONFIG"], &["vhangup"]),
    (&["SYS_NICE"], &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
];

/// The flags with which `clone` makes namespaces.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
/// The execution domains that programs really ask for: Linux, its 32-bit and UNAME26 variants, and "which?".
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

pub fn filters(capabilities: u64) -> Result<Vec<Filter>, String> {
    let has = |names: &[&str]| names.iter().any(|name| capabilities & bit(name).unwrap_or(0) != 0);
    let is_admin = has(&["SYS_ADMIN"]);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for (name, number) in table::all() {
        let refused = REFUSED.contains(&name)
            || GATED.iter().any(|(capabilities, calls)| calls.contains(&name) && !has(capabilities));
        if refused {
            continue;
        }
        let conditions = match name {
            "clone" if !is_admin => vec![rule(SeccompCmpOp::MaskedEq(CLONE_NAMESPACES), 0)?],
            "personality" => {
                PERSONALITIES.iter().map(|value| rule(SeccompCmpOp::Eq, *value)).collect::<Result<_, _>>()?
            }
            "socket" => vec![rule(SeccompCmpOp::Ne, libc::AF_VSOCK as u64)?],
            _ => Vec::new(),
        };
        rules.insert(number, conditions);
    }
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let mut filters = vec![new(rules, refused, SeccompAction::Allow)?];
    if !is_admin {
        // Its flags are behind a pointer; "no such call" makes libc fall back to clone.
        let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
        filters.push(new(clone3, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))?);
    }
    Ok(filters)
}

fn new(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<Filter, String> {
    compile(SeccompFilter::new(rules, otherwise, matched, target()?).map_err(|error| error.to_string())?)
}

fn rule(operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, String> {
    SeccompCondition::new(0, SeccompCmpArgLen::Dword, operator, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_in_the_table() {
        let legacy_elsewhere = cfg!(not(target_arch = "x86_64"));
        let gated = GATED.iter().flat_map(|(_, calls)| calls.iter());
        for name in REFUSED.iter().chain(gated) {
            assert!(legacy_elsewhere || table::number(name).is_some(), "{name}");
        }
        for (capabilities, _) in GATED {
            assert!(capabilities.iter().all(|name| bit(name).is_some()));
        }
    }

    #[test]
    fn it_fits_the_kernel_and_grows_with_capabilities() {
        let plain = filters(0).unwrap();
        assert_eq!(plain.len(), 2);
        assert!(plain[0].len() < 4096, "{}", plain[0].len());
        let admin = filters(u64::MAX).unwrap();
        assert_eq!(admin.len(), 1);
        assert!(admin[0].len() > plain[0].len());
    }
}
