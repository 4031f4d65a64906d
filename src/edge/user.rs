//! The name of a local user, for people who read who asked.
//!
//! Only `/etc/passwd` is asked: a directory service may hang, and no answer may wait for it. Rights never hang on a name.

use std::io::Read as _;
use std::path::Path;

/// Bytes that are read of it.
const FILE_BYTES: u64 = 1 << 20;

/// Bytes of a name, as in `useradd`.
const NAME_BYTES: usize = 32;

/// The name of a user of this host, if it has one.
pub(super) fn name(uid: u32) -> Option<String> {
    name_in(Path::new("/etc/passwd"), uid)
}

fn name_in(passwd: &Path, uid: u32) -> Option<String> {
    let mut text = Vec::new();
    std::fs::File::open(passwd).ok()?.take(FILE_BYTES).read_to_end(&mut text).ok()?;
    String::from_utf8_lossy(&text).lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        let plain =
            (1..=NAME_BYTES).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
        (plain && number.parse() == Ok(uid)).then(|| name.to_owned())
    })
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
    }
}
