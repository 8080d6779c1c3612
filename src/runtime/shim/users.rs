//! Who a process runs as: names and numbers looked up in the container's own `/etc/passwd` and `/etc/group`.
//!
//! Both files come from an image and are untrusted: only regular files are read, only so many bytes of them,
//! and lines that make no sense are passed over.

use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::spec::{Identity, UserSpec};
use crate::sys;

/// The most that is read of either file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The kernel's own bound is 65536; nobody needs that many.
const GROUPS_MAX: usize = 1024;

/// A user as found, with the home directory that goes into `HOME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub identity: Identity,
    pub home: String,
}

/// Reads `/etc/passwd` or `/etc/group` inside `root`; anything unreadable is as good as empty.
pub fn read(root: BorrowedFd, path: &str) -> String {
    let Ok(fd) = sys::open_in_root(root, Path::new(path), libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY) else {
        return String::new();
    };
    let file = File::from(fd);
    let mut bytes = Vec::new();
    if file.metadata().is_ok_and(|meta| meta.is_file()) {
        let _ = file.take(FILE_BYTES_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Decides on uid, gid, groups and home. The error is a sentence for the user.
pub fn resolve(spec: &UserSpec, passwd: &str, group: &str) -> Result<Found, String> {
    let wanted = if spec.user.is_empty() { "0" } else { spec.user.as_str() };
    let number: Option<u32> = wanted.parse().ok();
    // A name that looks like a number is a number, as in every runtime.
    let entry = passwd.lines().filter_map(passwd_line).find(|entry| match number {
        Some(uid) => entry.uid == uid,
        None => entry.name == wanted,
    });
    let (uid, mut gid, name, home) = match (&entry, number) {
        (Some(entry), _) => (entry.uid, entry.gid, Some(entry.name), entry.home),
        (None, Some(uid)) => (uid, 0, None, "/"),
        (None, None) => return Err(format!("unable to find user {wanted}: no matching entries in passwd file")),
    };
    if let Some(wanted) = &spec.group {
        gid = match wanted.parse() {
            Ok(gid) => gid,
            Err(_) => group_lines(group)
                .find(|(name, _, _)| name == wanted)
                .map(|(_, gid, _)| gid)
                .ok_or_else(|| format!("unable to find group {wanted}: no matching entries in group file"))?,
        };
    }
    let mut groups = vec![gid];
    let members = name.filter(|_| spec.merge_image_groups).into_iter().flat_map(|name| {
        group_lines(group)
            .filter(move |(_, _, members)| members.split(',').any(|member| member == name))
            .map(|(_, gid, _)| gid)
    });
    for gid in spec.supplemental_groups.iter().copied().chain(members) {
        if !groups.contains(&gid) && groups.len() < GROUPS_MAX {
            groups.push(gid);
        }
    }
    let home = if home.is_empty() { "/" } else { home }.to_owned();
    Ok(Found { identity: Identity { uid, gid, groups }, home })
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn passwd_line(line: &str) -> Option<PasswdEntry<'_>> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1).unwrap_or_default();
    Some(PasswdEntry { name, uid, gid, home })
}

fn group_lines(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:1001:App:/home/app:/bin/sh\n:::\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,app\napp:x:1001:\nstaff:x:50:app\n";

    fn user(user: &str, group: Option<&str>) -> UserSpec {
        UserSpec {
            user: user.into(),
            group: group.map(str::to_owned),
            supplemental_groups: vec![7],
            merge_image_groups: true,
        }
    }

    #[test]
    fn names_numbers_and_nobody_at_all() {
        let found = resolve(&user("app", None), PASSWD, GROUP).unwrap();
        assert_eq!(found.identity, Identity { uid: 1000, gid: 1001, groups: vec![1001, 7, 10, 50] });
        assert_eq!(found.home, "/home/app");
        assert_eq!(resolve(&user("1000", Some("wheel")), PASSWD, GROUP).unwrap().identity.gid, 10);
        let stranger = resolve(&user("4242", None), PASSWD, GROUP).unwrap();
        assert_eq!((stranger.identity.uid, stranger.identity.gid, stranger.home.as_str()), (4242, 0, "/"));
        assert_eq!(resolve(&user("", None), PASSWD, GROUP).unwrap().home, "/root");
        assert!(resolve(&user("ghost", None), PASSWD, GROUP).unwrap_err().contains("ghost"));
        assert!(resolve(&user("app", Some("ghosts")), PASSWD, GROUP).is_err());
    }

    #[test]
    fn a_strict_policy_takes_no_groups_from_the_image() {
        let spec = UserSpec { merge_image_groups: false, ..user("app", None) };
        assert_eq!(resolve(&spec, PASSWD, GROUP).unwrap().identity.groups, [1001, 7]);
    }
}
