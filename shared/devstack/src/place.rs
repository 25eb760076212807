//! Directories for servers, also where they run as another user.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result, bail};
use nix::unistd::{Uid, User};

/// Whom Postgres runs as: it refuses to be root, so root lends it `nobody`. `None` is the caller itself.
pub(crate) fn postgres_user() -> Result<Option<(u32, u32)>> {
    let me = Uid::effective();
    if !me.is_root() {
        // initdb asks for the name of its user and fails without one.
        if User::from_uid(me)?.is_none() {
            bail!("user id {me} has no entry in /etc/passwd, which Postgres needs: add one, or set DATABASE_URL");
        }
        return Ok(None);
    }
    let nobody = User::from_name("nobody")?
        .context("as root Postgres runs as the user nobody, whom /etc/passwd doesn't know")?;
    Ok(Some((nobody.uid.as_raw(), nobody.gid.as_raw())))
}

/// Makes `dir` a directory that `user` owns and can reach, and answers its real path.
///
/// In a checkout that the user can't walk into (one under `/root`) it is a link to `/var/tmp/herald-<hash of its path>`.
pub(crate) fn make(dir: &Path, user: Option<(u32, u32)>) -> Result<PathBuf> {
    let parent = dir.parent().context("a server's directory has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    let Some((uid, gid)) = user else {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        return Ok(fs::canonicalize(dir)?);
    };
    if fs::symlink_metadata(dir).is_err() && !all_may_enter(&fs::canonicalize(parent)?)? {
        let path = fs::canonicalize(parent)?.join(dir.file_name().unwrap_or_default());
        let elsewhere = elsewhere(&path);
        symlink(&elsewhere, dir).with_context(|| format!("link {}", dir.display()))?;
    }
    let real = fs::read_link(dir).unwrap_or_else(|_| dir.to_path_buf());
    match fs::create_dir(&real) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("create {}", real.display()));
        }
        _ => {}
    }
    // Anybody may write to /var/tmp: what lies there under our name must be ours.
    let found = fs::symlink_metadata(&real)?;
    if !found.is_dir() || ![0, uid].contains(&found.uid()) {
        bail!("{} belongs to somebody else: remove it", real.display());
    }
    chown(&real, Some(uid), Some(gid)).with_context(|| format!("chown {}", real.display()))?;
    Ok(fs::canonicalize(&real)?)
}

/// Where to make `data` before it gets its name: what was interrupted is made again, and a tool that outlived the program which
/// was killed over it never meets the next one.
pub(crate) fn unfinished(data: &Path) -> Result<PathBuf> {
    let parent = data.parent().context("a data directory has a parent")?;
    for entry in fs::read_dir(parent)?.flatten() {
        if entry.path().extension().is_some_and(|end| end == "unfinished") {
            // That tool may still be writing there; then a later start removes it.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(data.with_extension(format!("{}.unfinished", process::id())))
}

/// Removes a directory, and what it is a link to.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    if let Ok(real) = fs::read_link(dir) {
        remove_all(&real)?;
    }
    remove_all(dir)
}

/// Removes everything in a directory and leaves the directory, or the link to it.
pub(crate) fn empty(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        remove_all(&entry?.path())?;
    }
    Ok(())
}

pub(crate) fn remove_all(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn all_may_enter(dir: &Path) -> Result<bool> {
    for ancestor in dir.ancestors() {
        if fs::metadata(ancestor)?.permissions().mode() & 0o001 == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn elsewhere(path: &Path) -> PathBuf {
    PathBuf::from(format!("/var/tmp/herald-{}", hash(path.as_os_str().as_encoded_bytes())))
}

/// FNV-1a, as hex: the same in every build, which the standard library's hash doesn't promise.
pub(crate) fn hash(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_others_cannot_enter_is_linked_to_one_they_can() {
        if !Uid::effective().is_root() {
            return;
        }
        let closed = tempfile::tempdir().unwrap();
        fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let (dir, user) = (closed.path().join("postgres"), postgres_user().unwrap());
        let real = make(&dir, user).unwrap();
        assert!(real.starts_with("/var/tmp"), "{}", real.display());
        assert_eq!(make(&dir, user).unwrap(), real);
        assert_eq!(fs::metadata(&real).unwrap().uid(), user.unwrap().0);

        fs::write(dir.join("file"), "x").unwrap();
        empty(&dir).unwrap();
        assert!(real.exists() && !real.join("file").exists());
        remove(&dir).unwrap();
        assert!(!real.exists() && fs::symlink_metadata(&dir).is_err());
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(hash(b""), "cbf29ce484222325");
        assert_eq!(hash(b"a"), "af63dc4c8601ec8c");
    }
}
