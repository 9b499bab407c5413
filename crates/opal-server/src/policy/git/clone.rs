//! A clone on disk: who owns it, where it is, when it goes away.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use tokio::runtime::Handle;
use tracing::warn;
use uuid::Uuid;

/// Held locked by the process that uses a clone. Not named `*.lock`: those are git's.
const IN_USE: &str = "opal-in-use";

/// A directory with a git repository in it that this process alone works on.
#[derive(Debug)]
pub(in crate::policy) struct CloneDir {
    root: PathBuf,
    git_dir: PathBuf,
    kept: bool,
    in_use: Option<InUse>,
}

/// A lock that is held.
///
/// It is given back by name: a child that was forked and has not yet become `git` also has the
/// file, so that closing ours would not be enough.
#[derive(Debug)]
struct InUse(File);

impl Drop for InUse {
    fn drop(&mut self) {
        // Closing it is the other way, and follows.
        let _ = self.0.unlock();
    }
}

impl CloneDir {
    /// Makes a new directory for a clone; it is removed with the value, soon after.
    pub(in crate::policy) fn create(parent: &Path, prefix: &str) -> io::Result<Self> {
        let name = format!("{prefix}-{}", Uuid::new_v4().simple());
        let root = parent.join(name);
        fs::create_dir_all(&root)?;
        let in_use = File::create(root.join(IN_USE))?;
        in_use.try_lock()?;
        Ok(Self {
            git_dir: root.clone(),
            root,
            kept: false,
            in_use: Some(InUse(in_use)),
        })
    }

    /// Takes over the clone at `root`, bare or not; `None` if there is none or it is in use.
    ///
    /// Lock files of a `git` that was killed are removed.
    pub(in crate::policy) fn open(root: &Path) -> io::Result<Option<Self>> {
        let inside = root.join(".git");
        let git_dir = if inside.is_dir() {
            inside
        } else {
            root.to_owned()
        };
        if !git_dir.join("HEAD").is_file() {
            return Ok(None);
        }
        let Some(in_use) = take(&git_dir.join(IN_USE))? else {
            return Ok(None);
        };
        remove_locks(&git_dir)?;
        Ok(Some(Self {
            root: root.to_owned(),
            git_dir,
            kept: true,
            in_use: Some(in_use),
        }))
    }

    /// Whether another process (or another value of this one) works on the clone at `root`.
    pub(in crate::policy) fn is_in_use(root: &Path) -> bool {
        [root.join(".git").join(IN_USE), root.join(IN_USE)]
            .iter()
            .any(|file| file.is_file() && matches!(take(file), Ok(None)))
    }

    /// Whether it outlives the process.
    pub(in crate::policy) fn is_kept(&self) -> bool {
        self.kept
    }

    /// Where git works.
    pub(in crate::policy) fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    /// Removes lock files that a killed `git` left. Only this process uses the clone.
    pub(in crate::policy) fn remove_locks(&self) -> io::Result<()> {
        remove_locks(&self.git_dir)
    }

    /// Moves the clone to where it is kept for the next start, in place of what is there.
    pub(in crate::policy) fn keep_at(mut self, place: &Path) -> io::Result<Self> {
        let mut aside = place.as_os_str().to_owned();
        // Named as a leftover, and removed as one if we are stopped before it is gone.
        aside.push(format!("-old-{}", Uuid::new_v4().simple()));
        let aside = PathBuf::from(aside);
        match fs::rename(place, &aside) {
            Ok(()) => remove(&aside),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        fs::rename(&self.root, place)?;
        place.clone_into(&mut self.root);
        place.clone_into(&mut self.git_dir);
        self.kept = true;
        Ok(self)
    }
}

impl Drop for CloneDir {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let removal = Removal {
            root: std::mem::take(&mut self.root),
            _in_use: self.in_use.take(),
        };
        // The last to use it may be a request. Where there is no runtime nobody waits for us, and
        // a runtime that ends drops what it has not begun: either way it is removed.
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(removal))),
            Err(_) => drop(removal),
        }
    }
}

/// Removes a clone when dropped, then gives its lock back.
struct Removal {
    root: PathBuf,
    _in_use: Option<InUse>,
}

impl Drop for Removal {
    fn drop(&mut self) {
        remove(&self.root);
    }
}

/// Removes clones that a crashed process of ours left. Those in use, and what is not ours, stay.
pub(in crate::policy) fn remove_leftovers(parent: &Path, prefix: &str) -> io::Result<()> {
    let start = format!("{prefix}-");
    for entry in fs::read_dir(parent)? {
        let root = entry?.path();
        let ours = root
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with(&start))
            && root.join(IN_USE).is_file();
        if ours && take(&root.join(IN_USE))?.is_some() {
            remove(&root);
        }
    }
    Ok(())
}

/// Locks the file; `None` if another process holds it.
fn take(path: &Path) -> io::Result<Option<InUse>> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(InUse(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn remove(directory: &Path) {
    if let Err(error) = fs::remove_dir_all(directory)
        && error.kind() != io::ErrorKind::NotFound
    {
        let path = directory.display();
        warn!(%error, "Could not remove the old clone at `{path}`");
    }
}

/// Git's own locks, beside the files of the top level and below `refs`, and half-received packs.
fn remove_locks(git_dir: &Path) -> io::Result<()> {
    remove_partial(&git_dir.join("objects"), "tmp_objdir-");
    remove_partial(&git_dir.join("objects/pack"), "tmp_");
    let mut pending = vec![git_dir.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                let holds_locks = directory != git_dir || is_named(&path, "refs");
                if holds_locks {
                    pending.push(path);
                }
            } else if path
                .extension()
                .is_some_and(|extension| extension == "lock")
            {
                warn!(
                    "Removing `{}`, left by a git that was stopped",
                    path.display()
                );
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(())
}

/// Removes what a transfer that was stopped left: nothing else clears it for weeks.
fn remove_partial(directory: &Path, start: &str) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(start) {
            let path = entry.path();
            // What stays costs space, nothing else.
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
    }
}

fn is_named(path: &Path, name: &str) -> bool {
    path.file_name().is_some_and(|file_name| file_name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_in_use_is_left_alone_and_a_leftover_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let used = CloneDir::create(parent.path(), "clone").unwrap();
        let leftover = parent.path().join("clone-dead");
        fs::create_dir(&leftover).unwrap();
        fs::write(leftover.join(IN_USE), "").unwrap();
        let foreign = parent.path().join("clone-foreign");
        fs::create_dir(&foreign).unwrap();

        remove_leftovers(parent.path(), "clone").unwrap();

        assert!(used.git_dir().exists());
        assert!(foreign.exists());
        assert!(!leftover.exists());
        let path = used.git_dir().to_owned();
        drop(used);
        assert!(!path.exists());
    }

    #[test]
    fn a_clone_that_a_runtime_dropped_at_its_end_is_removed_too() {
        let parent = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let (begun, begins) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        runtime.spawn_blocking(move || {
            begun.send(()).unwrap();
            let _ = released.recv();
        });
        begins.recv().unwrap();
        let clone = CloneDir::create(parent.path(), "clone").unwrap();
        let path = clone.git_dir().to_owned();
        runtime.block_on(async { drop(clone) });
        assert!(path.exists(), "the only thread that may block is taken");
        drop(release);
        drop(runtime);
        assert!(!path.exists());
    }

    #[test]
    fn locks_of_a_killed_git_are_removed_when_a_clone_is_opened() {
        let parent = tempfile::tempdir().unwrap();
        let git_dir = parent.path().join("kept/.git");
        fs::create_dir_all(git_dir.join("refs/heads")).unwrap();
        fs::create_dir_all(git_dir.join("objects/pack")).unwrap();
        let partial = "objects/pack/tmp_pack_x";
        for file in ["HEAD", "index.lock", "refs/heads/main.lock", partial] {
            fs::write(git_dir.join(file), "").unwrap();
        }
        let root = parent.path().join("kept");
        let clone = CloneDir::open(&root).unwrap().unwrap();
        assert!(!git_dir.join("index.lock").exists());
        assert!(!git_dir.join(partial).exists());
        assert!(!git_dir.join("refs/heads/main.lock").exists());
        assert!(CloneDir::open(&root).unwrap().is_none(), "it is in use");
        drop(clone);
        assert!(git_dir.exists());
    }
}
