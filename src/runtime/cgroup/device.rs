//! The device filter of cgroup v2: a small BPF program per group that the kernel asks whenever a process of
//! the group opens or makes a device node.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use super::{Error, limits};
use crate::spec::CgroupSpec;
use crate::sys;

const BPF_PROG_LOAD: u32 = 5;
const BPF_PROG_ATTACH: u32 = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

const DEVICE_BLOCK: i32 = 1;
const DEVICE_CHAR: i32 = 2;
const ACCESS_MKNOD: i32 = 1;
const ACCESS_READ: i32 = 2;
const ACCESS_WRITE: i32 = 4;

/// One instruction: opcode, registers (destination in the low half), jump offset, immediate value.
type Instruction = (u8, u8, i16, i32);

#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttributes {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// Restricts the group at `dir` to the devices of `spec`.
pub fn restrict(dir: &Path, spec: &CgroupSpec) -> Result<(), Error> {
    if spec.all_devices {
        return Ok(());
    }
    attach(dir, &program(spec)).map_err(|source| Error::Io {
        action: "restrict devices of",
        path: dir.to_owned(),
        source,
    })
}

fn attach(dir: &Path, program: &[Instruction]) -> io::Result<()> {
    let code: Vec<u8> = program
        .iter()
        .flat_map(|&(op, registers, offset, immediate)| {
            let (offset, immediate) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
            [op, registers].into_iter().chain(offset).chain(immediate)
        })
        .collect();
    let license = c"Apache-2.0";
    let mut load = LoadAttributes {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: program.len() as u32,
        insns: code.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..LoadAttributes::default()
    };
    let loaded: OwnedFd = sys::bpf_fd(BPF_PROG_LOAD, &mut load)?;
    let group = File::open(dir)?;
    let mut attach = AttachAttributes {
        target_fd: group.as_raw_fd() as u32,
        attach_bpf_fd: loaded.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    sys::bpf(BPF_PROG_ATTACH, &mut attach).map(drop)
}

/// Register 1 holds the question: `access_type` (device type in the low half, access in the high one), major, minor.
fn program(spec: &CgroupSpec) -> Vec<Instruction> {
    let load = |register: u8, offset: i16| (0x61, register | 1 << 4, offset, 0);
    let mut code = vec![
        load(2, 0),               // r2 = access_type
        (0xbc, 3 | 2 << 4, 0, 0), // w3 = w2
        (0x54, 2, 0, 0xffff),     // w2 &= 0xffff: the device's type
        (0x74, 3, 0, 16),         // w3 >>= 16: the access
        load(4, 4),               // r4 = major
        load(5, 8),               // r5 = minor
    ];
    let mut allow = |kind: char, major: Option<u64>, minor: Option<u64>, access: i32| {
        let kind = if kind == 'b' { DEVICE_BLOCK } else { DEVICE_CHAR };
        let mut test: Vec<Instruction> = vec![(0x56, 2, 0, kind)]; // if w2 != kind goto next
        // Refused if it asks for more than `access`.
        test.push((0xbc, 1 | 3 << 4, 0, 0)); // w1 = w3
        test.push((0x54, 1, 0, !access)); // w1 &= !access
        test.push((0x56, 1, 0, 0)); // if w1 != 0 goto next
        if let Some(major) = major {
            test.push((0x56, 4, 0, major as i32));
        }
        if let Some(minor) = minor {
            test.push((0x56, 5, 0, minor as i32));
        }
        test.push((0xb4, 0, 0, 1)); // w0 = 1
        test.push((0x95, 0, 0, 0)); // return
        let len = test.len();
        for (at, instruction) in test.iter_mut().enumerate() {
            if instruction.0 == 0x56 {
                instruction.2 = (len - at - 1) as i16;
            }
        }
        code.extend(test);
    };
    allow('c', None, None, ACCESS_MKNOD);
    allow('b', None, None, ACCESS_MKNOD);
    for (kind, major, minor) in limits::DEVICES {
        allow(kind, Some(major), minor, ACCESS_MKNOD | ACCESS_READ | ACCESS_WRITE);
    }
    for (kind, major, minor, letters) in &spec.devices {
        let access = letters.chars().fold(0, |access, letter| {
            access
                | match letter {
                    'r' => ACCESS_READ,
                    'w' => ACCESS_WRITE,
                    'm' => ACCESS_MKNOD,
                    _ => 0,
                }
        });
        allow(*kind, Some(*major), Some(*minor), access);
    }
    code.push((0xb4, 0, 0, 0)); // w0 = 0
    code.push((0x95, 0, 0, 0)); // return
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// The v2 tree, where there is one; a machine without cannot run this.
    fn tree() -> Option<&'static Path> {
        ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .into_iter()
            .map(Path::new)
            .find(|path| path.join("cgroup.controllers").exists())
    }

    #[test]
    fn the_kernel_takes_the_program_and_obeys_it() {
        let Some(tree) = tree() else { return };
        let group = tree.join(format!("cluster-device-test-{}", std::process::id()));
        std::fs::create_dir(&group).unwrap();
        let spec = CgroupSpec { devices: vec![('c', 10, 229, "r".into())], ..CgroupSpec::default() };
        let restricted = restrict(&group, &spec);
        let dir = tempfile::tempdir().unwrap();
        let script = format!(
            "read x; cd {}; mknod kmsg c 1 11 && echo made; cat kmsg | head -c 1 >/dev/null || true; \
             (exec 3<kmsg) 2>/dev/null || echo refused; (exec 3<>/dev/null) && echo allowed; \
             mknod fuse c 10 229; (exec 3>fuse) 2>/dev/null || echo only-read",
            dir.path().display()
        );
        let mut child = Command::new("/bin/busybox")
            .args(["sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let joined = std::fs::write(group.join("cgroup.procs"), child.id().to_string());
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        let output = child.wait_with_output().unwrap();
        std::fs::remove_dir(&group).unwrap();
        restricted.unwrap();
        joined.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "made\nrefused\nallowed\nonly-read\n");
    }
}
