//! Decides: whether the kernel lets anybody write to a file system. One that it has found an error in it does not
//! (ext4(5), `errors=remount-ro`), and it cannot be told otherwise: only what is mounted anew can be written again. Linux
//! 6.18 refuses even `mount -o remount,rw`.

use std::path::Path;

/// What whoever looks after the machine is to do.
pub const REMEDY: &str = "look for the cause with dmesg, then restart the machine: the file system is checked before it is \
                          mounted again, and pods go on from what is there";

/// Whether everything below `path` is refused, as far as the table of mounts says.
#[must_use]
pub fn is_read_only(path: &Path) -> bool {
    let Ok(real) = std::fs::canonicalize(path) else { return false };
    std::fs::read_to_string("/proc/self/mountinfo").is_ok_and(|table| refuses(&table, &real))
}

/// By the options of the mount, and those of the file system behind it (proc(5)).
fn refuses(table: &str, path: &Path) -> bool {
    let rows = table.lines().filter_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(4);
        let (point, own) = (fields.next()?.replace("\\040", " "), fields.next()?);
        let behind = system.splitn(3, ' ').nth(2)?;
        path.starts_with(&point).then_some((point.len(), [own, behind]))
    });
    // The closest; of several at one place the last one covers the others.
    let closest = rows.max_by_key(|(length, _)| *length);
    let says_no = |option: &str| matches!(option, "ro" | "emergency_ro" | "shutdown");
    closest.is_some_and(|(_, options)| options.into_iter().flat_map(|list| list.split(',')).any(says_no))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_mount_decides() {
        let table = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n\
                     30 22 8:2 / /a rw,relatime - ext4 /dev/sda2 rw,errors=remount-ro,emergency_ro\n\
                     31 30 8:3 / /a/b rw - xfs /dev/sda3 rw\n\
                     32 22 8:4 / /c\\040d rw,relatime - ext4 /dev/sda4 ro\n\
                     33 22 8:5 / /e ro,relatime - ext4 /dev/sda5 rw\n\
                     34 22 8:6 / /f ro - ext4 /dev/sda6 ro\n\
                     35 22 8:7 / /f rw - ext4 /dev/sda7 rw\n";
        let check = |path: &str, expect: bool| assert_eq!(refuses(table, Path::new(path)), expect, "{path}");
        check("/var/lib", false);
        check("/a", true);
        check("/a/x", true);
        check("/ab", false);
        check("/a/b/c", false);
        check("/c d/e", true);
        check("/e", true);
        check("/f", false);
        assert!(!is_read_only(Path::new("/nowhere")));
    }
}
