//! Who a process is when it is started again.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, bail};
use uuid::Uuid;

/// The id that is kept in `dir`; the first time it is drawn. Two processes never have the same one at once: the file is
/// locked until this process is dead (flock(2)), so whoever gets the id knows that who had it before does nothing any more.
///
/// # Errors
/// Another process has it, the directory can't be written, or the file holds something else.
pub fn hold(dir: &Path) -> anyhow::Result<String> {
    std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    let path = dir.join("instance");
    let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open().with_context(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            bail!("another process has {}: each needs a directory of its own", dir.display())
        }
        Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("lock {}", path.display())),
    }
    let id = read_or_draw(&mut file).with_context(|| format!("read {}", path.display()))?;
    // Closing it would let go of the lock, and tasks may run until the process ends.
    std::mem::forget(file);
    Ok(id.to_string())
}

fn read_or_draw(file: &mut File) -> anyhow::Result<Uuid> {
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    if !text.is_empty() {
        return text.trim_end().parse().context("it holds no instance id: remove it, and another is drawn");
    }
    let id = Uuid::now_v7();
    writeln!(file, "{id}")?;
    file.sync_all()?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_held_by_one_and_is_the_same_when_it_is_held_again() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("made/when/missing");
        let id = hold(&state).unwrap();
        assert!(hold(&state).unwrap_err().to_string().starts_with("another process has "));
        // Another file beside the locked one, as a process finds it that is started when the first is dead.
        let later = dir.path().join("later");
        std::fs::create_dir(&later).unwrap();
        std::fs::copy(state.join("instance"), later.join("instance")).unwrap();
        assert_eq!(hold(&later).unwrap(), id);
        assert_ne!(hold(&dir.path().join("other")).unwrap(), id);
    }

    #[test]
    fn a_file_that_holds_something_else_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("instance"), "mine").unwrap();
        assert!(format!("{:#}", hold(dir.path()).unwrap_err()).contains("it holds no instance id"));
        assert_eq!(std::fs::read_to_string(dir.path().join("instance")).unwrap(), "mine");
    }
}
