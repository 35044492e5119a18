//! Material that is replaced while it is in use.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use aws_lc_rs::digest;

use crate::date::Date;
use crate::error::TlsError;
use crate::pem::Pem;

/// What a reload did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// New handshakes use new material from now on.
    Changed,
    /// The files hold what they held before.
    Unchanged,
}

/// What is parsed from PEM sources.
pub(crate) trait Material: Sized {
    /// The description of the sources, which outlives every reload.
    type Recipe;

    /// Reads every source through `reader` and parses it.
    fn load(recipe: &Self::Recipe, reader: &mut Reader) -> Result<Self, TlsError>;
}

/// Reads sources, and remembers which files they were and what was in them.
pub(crate) struct Reader {
    now: Date,
    files: Vec<PathBuf>,
    digest: digest::Context,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self {
            now: Date::now(),
            files: Vec::new(),
            digest: digest::Context::new(&digest::SHA256),
        }
    }

    /// When the reading began, by which validity is judged.
    pub(crate) fn now(&self) -> Date {
        self.now
    }

    pub(crate) fn read(&mut self, source: &Pem) -> Result<Arc<[u8]>, TlsError> {
        let text = source.read()?;
        // The length goes in, too, so that text that moves from one file to another is a change.
        self.digest.update(&(text.len() as u64).to_be_bytes());
        self.digest.update(&text);
        self.files.extend(source.path().map(Path::to_owned));
        Ok(text)
    }
}

/// Material of one moment.
#[derive(Debug)]
pub(crate) struct Version<M> {
    pub(crate) material: M,
    /// Counts the changes since the start.
    pub(crate) number: u64,
    digest: Vec<u8>,
}

/// Current material and how to make the next.
pub(crate) struct Reloadable<M: Material> {
    recipe: M::Recipe,
    files: Vec<PathBuf>,
    current: ArcSwap<Version<M>>,
    /// Reloads take turns, or a slow one could put back what it read before a fast one.
    turn: Mutex<()>,
}

impl<M: Material> Reloadable<M> {
    /// Reads the material for the first time.
    pub(crate) fn load(recipe: M::Recipe) -> Result<Self, TlsError> {
        let mut reader = Reader::new();
        let material = M::load(&recipe, &mut reader)?;
        Ok(Self {
            recipe,
            files: reader.files,
            current: ArcSwap::from_pointee(Version {
                material,
                number: 0,
                digest: reader.digest.finish().as_ref().to_vec(),
            }),
            turn: Mutex::new(()),
        })
    }

    pub(crate) fn recipe(&self) -> &M::Recipe {
        &self.recipe
    }

    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    pub(crate) fn current(&self) -> Guard<Arc<Version<M>>> {
        self.current.load()
    }

    /// Reads the material again. After an error the old material stays in use.
    pub(crate) fn reload(&self) -> Result<Reload, TlsError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reader = Reader::new();
        let material = M::load(&self.recipe, &mut reader)?;
        let digest = reader.digest.finish().as_ref().to_vec();
        let old = self.current.load();
        if digest == old.digest {
            return Ok(Reload::Unchanged);
        }
        self.current.store(Arc::new(Version {
            material,
            number: old.number + 1,
            digest,
        }));
        Ok(Reload::Changed)
    }
}
