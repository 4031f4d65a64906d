//! Local users: the names of those who ask, for people, and the numbers and groups of those whom the configuration names.
//!
//! Only `/etc/passwd` and `/etc/group` are asked: a directory service may hang, and no answer may wait for it. A name is
//! never a right: it is made a number once, at the start.

use std::io::Read as _;
use std::path::Path;

/// Bytes that are read of a file.
const FILE_BYTES: u64 = 1 << 20;

/// Bytes of a name, as in `useradd`.
const NAME_BYTES: usize = 32;

const PASSWD: &str = "/etc/passwd";

/// The name of a user of this host, if it has one.
pub(super) fn name(uid: u32) -> Option<String> {
    name_in(Path::new(PASSWD), uid)
}

/// The number of the user of this name, or of this number.
pub fn uid(name: &str) -> Option<u32> {
    name.parse().ok().or_else(|| uid_in(Path::new(PASSWD), name))
}

/// The groups that list this user.
pub(super) fn groups(name: &str) -> Vec<u32> {
    groups_in(Path::new("/etc/group"), name)
}

fn read(path: &Path) -> Option<String> {
    let mut text = Vec::new();
    std::fs::File::open(path).ok()?.take(FILE_BYTES).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

fn name_in(passwd: &Path, uid: u32) -> Option<String> {
    read(passwd)?.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        let plain =
            (1..=NAME_BYTES).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
        (plain && number.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

fn uid_in(passwd: &Path, wanted: &str) -> Option<u32> {
    read(passwd)?.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (name == wanted).then(|| number.parse().ok()).flatten()
    })
}

fn groups_in(group: &Path, user: &str) -> Vec<u32> {
    let of_line = |line: &str| {
        let mut fields = line.split(':').skip(2);
        let (number, members) = (fields.next()?.parse().ok()?, fields.next()?);
        members.split(',').any(|member| member == user).then_some(number)
    };
    read(group).unwrap_or_default().lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_name_of_its_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "root:x:0:0::/:/bin/sh\nbroken\n\x07:x:5:5::/:\n:x:6:\nvm:x:107:107:,:/:/x\n",
        )
        .unwrap();
        let found = |uid| name_in(file.path(), uid);
        assert_eq!(found(0).as_deref(), Some("root"));
        assert_eq!(found(107).as_deref(), Some("vm"));
        assert_eq!((found(5), found(6), found(9)), (None, None, None));
        assert_eq!(name_in(Path::new("/nonexistent"), 0), None);
        let number = |name| uid_in(file.path(), name);
        assert_eq!((number("vm"), number("broken"), number("nobody")), (Some(107), None, None));
        assert_eq!(super::uid("4711"), Some(4711));
    }

    #[test]
    fn a_user_is_in_the_groups_that_list_it_and_in_no_others() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "whydown:x:998:vm,web\nkvm:x:7:vmx\nbroken:vm\nall:x:5:web,vm\n")
            .unwrap();
        assert_eq!(groups_in(file.path(), "vm"), [998, 5]);
        assert_eq!(groups_in(file.path(), "v"), Vec::<u32>::new());
    }
}
