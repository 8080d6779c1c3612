//! Capability names and the sets that the CRI's rules make of them. Pure.

use crate::spec::CapabilitySpec;

/// Names without `CAP_`, at their numbers.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has unless it says otherwise.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Every capability there is; the kernel's own bounding set cuts it to what exists.
pub const ALL: u64 = (1 << NAMES.len()) - 1;

/// The bit of a capability, named without `CAP_`.
pub fn bit(name: &str) -> Option<u64> {
    NAMES.iter().position(|known| *known == name).map(|number| 1 << number)
}

/// The sets after adding and dropping; `ALL` comes first, names in any case, with or without `CAP_`.
/// The error is the name that does not exist.
pub fn compute(
    privileged: bool,
    add: &[String],
    drop: &[String],
    ambient: &[String],
) -> Result<CapabilitySpec, String> {
    let bits = |names: &[String]| {
        names.iter().try_fold((0, false), |(bits, all), name| {
            let upper = name.to_ascii_uppercase();
            if upper == "ALL" {
                return Ok((bits, true));
            }
            let bit = bit(upper.strip_prefix("CAP_").unwrap_or(&upper)).ok_or_else(|| name.clone())?;
            Ok::<_, String>((bits | bit, all))
        })
    };
    let ((added, add_all), (dropped, drop_all), (ambient, _)) = (bits(add)?, bits(drop)?, bits(ambient)?);
    if privileged {
        return Ok(CapabilitySpec { bounding: ALL, ambient });
    }
    let mut bounding = DEFAULT.iter().filter_map(|name| bit(name)).fold(0, |bits, bit| bits | bit);
    if add_all {
        bounding = ALL;
    }
    if drop_all {
        bounding = 0;
    }
    bounding |= added;
    bounding &= !dropped;
    bounding |= ambient;
    Ok(CapabilitySpec { bounding, ambient })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn adding_and_dropping() {
        let default = compute(false, &[], &[], &[]).unwrap().bounding;
        assert_eq!(default, 0xa804_25fb, "the mask that every container engine's default shows in /proc");
        let bind_only = compute(false, &names(&["NET_BIND_SERVICE"]), &names(&["ALL"]), &[]).unwrap();
        assert_eq!(bind_only.bounding, 1 << 10);
        let all_but = compute(false, &names(&["ALL"]), &names(&["cap_sys_admin"]), &[]).unwrap();
        assert_eq!(all_but.bounding, ALL & !(1 << 21));
        assert_eq!(compute(true, &[], &names(&["ALL"]), &[]).unwrap().bounding, ALL);
        assert_eq!(compute(false, &names(&["FLY"]), &[], &[]), Err("FLY".to_owned()));
    }
}
