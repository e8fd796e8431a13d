//! Effects: the database file: opening it without changing it, loading it, and one transaction.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, params};

use super::super::{Error, Loaded, OpenError, Unreadable};
use crate::api::encode;
use crate::api::key::Key;
use crate::api::object::Object;
use crate::api::resource;
use crate::api::revision::Revision;
use crate::disk;

/// `PRAGMA user_version` of files that this version writes.
const SCHEMA: i64 = 1;
/// `PRAGMA application_id`: "SKIF".
const APPLICATION: i64 = 0x534b_4946;
/// Pages of 4 KiB in the log before they are copied into the database: bounds the log at 4 MiB.
const CHECKPOINT_PAGES: i64 = 1000;
/// KiB of pages in memory. The writer only appends and rewrites: there is little to gain from more.
const PAGE_CACHE_KIB: i64 = 512;

const TABLES: &str = "
CREATE TABLE objects (
    id INTEGER PRIMARY KEY,
    resource TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    revision INTEGER NOT NULL,
    json BLOB NOT NULL
) STRICT;
CREATE TABLE marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO marks VALUES ('revision', 1);
";

/// An open database that nobody else has.
pub struct File {
    path: PathBuf,
    db: Connection,
    _log: EmptyLog,
    /// Held for as long as the file is open. Not SQLite's own lock, which any other open of the same file in this
    /// process would drop when it closes.
    _lock: fs::File,
}

/// Opening makes an empty log. A file that is refused gets it taken away again, once the connection is closed.
struct EmptyLog(Option<PathBuf>);

impl EmptyLog {
    /// Of a database that is not open yet.
    fn of(path: &Path) -> Self {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let log = PathBuf::from(log);
        Self((!log.exists()).then_some(log))
    }
}

impl Drop for EmptyLog {
    fn drop(&mut self) {
        let Some(log) = &self.0 else { return };
        if fs::metadata(log).is_ok_and(|m| m.len() == 0) {
            let _ = fs::remove_file(log);
        }
    }
}

/// Where a key is.
#[derive(Clone, Copy)]
pub struct Slot {
    /// Rows are numbered by the revision of the creation, so they are never reused either.
    pub row: i64,
    pub revision: Revision,
}

impl File {
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { file: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(io)?;
        }
        let lock = lock(path)?;
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(io(e)),
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let log = EmptyLog::of(path);
        let db = Connection::open_with_flags(path, flags)
            .map_err(|source| OpenError::Sqlite { file: path.to_owned(), source })?;
        let file = Self { path: path.to_owned(), db, _log: log, _lock: lock };
        file.prepare().map_err(|e| file.refusal(e))??;
        Ok(file)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn prepare(&self) -> rusqlite::Result<Result<(), OpenError>> {
        let db = &self.db;
        let pragma = |name| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        // Closing a database that we refuse must not write to it.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        db.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        db.pragma_update(None, "cache_size", -PAGE_CACHE_KIB)?;
        db.pragma_update(None, "temp_store", "MEMORY")?;
        let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables == 0 && pragma("application_id")? == 0 {
            // Made just now, or a crash came before the tables did.
            if let Err(source) = self.create()? {
                return Ok(Err(OpenError::Io { file: self.path.clone(), source }));
            }
        } else {
            if pragma("application_id")? != APPLICATION {
                return Ok(Err(OpenError::Foreign { file: self.path.clone() }));
            }
            let found = pragma("user_version")?;
            if found > SCHEMA {
                return Ok(Err(OpenError::Newer { file: self.path.clone(), found, known: SCHEMA }));
            }
            let check: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if check != "ok" {
                return Ok(Err(self.corrupt(check)));
            }
        }
        // Nothing to do but for a crash right after the tables were made.
        db.pragma_update(None, "journal_mode", "WAL")?;
        // With FULL, each commit syncs the log; the database itself is synced only when the log is copied into it.
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        db.pragma_update(None, "journal_size_limit", CHECKPOINT_PAGES * 4096)?;
        Ok(Ok(()))
    }

    /// One transaction under a rollback journal: after a crash there are all tables or none.
    fn create(&self) -> rusqlite::Result<std::io::Result<()>> {
        self.db.pragma_update(None, "page_size", 4096)?;
        self.db.execute_batch(&format!(
            "BEGIN; {TABLES} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {SCHEMA}; COMMIT;"
        ))?;
        // The name of the file must survive a power cut too.
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        Ok(fs::File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all()))
    }

    /// Everything, and where it is.
    pub fn load(&self) -> Result<(HashMap<Key, Slot>, Loaded), OpenError> {
        let (mut index, mut loaded) = Default::default();
        let mark = self.read(&mut index, &mut loaded).map_err(|e| self.refusal(e))??;
        let last = index.values().map(|slot| slot.revision).max().unwrap_or_default();
        loaded.revision = last.max(mark);
        Ok((index, loaded))
    }

    fn read(
        &self,
        index: &mut HashMap<Key, Slot>,
        loaded: &mut Loaded,
    ) -> rusqlite::Result<Result<Revision, OpenError>> {
        let mut names: HashMap<String, Arc<str>> = HashMap::new();
        let mut query = self.db.prepare("SELECT id, resource, namespace, name, revision, json FROM objects")?;
        let mut found = query.query([])?;
        while let Some(row) = found.next()? {
            let resource: String = row.get(1)?;
            let resource = names.entry(resource).or_insert_with_key(|r| r.as_str().into()).clone();
            let namespace: String = row.get(2)?;
            let namespace = names.entry(namespace).or_insert_with_key(|n| n.as_str().into()).clone();
            let name: String = row.get(3)?;
            let key = Key { resource, namespace, name: name.into() };
            let revision = Revision(row.get::<_, i64>(4)?.unsigned_abs());
            let text = row.get_ref(5)?.as_blob()?;
            if index.insert(key.clone(), Slot { row: row.get(0)?, revision }).is_some() {
                return Ok(Err(self.corrupt(format!("{key} is there twice"))));
            }
            match encode::read(text, &key.name) {
                Ok(value) => {
                    let selectable = resource::find_storage(&key.resource).map_or(&[][..], |r| r.selectable);
                    let head = encode::head(&value, selectable);
                    let json = encode::splice(text, revision);
                    loaded.objects.push(Arc::new(Object { key, revision, head, json }));
                }
                Err(reason) => loaded.unreadable.push(Unreadable { key, revision, reason }),
            }
        }
        let mark = self.db.query_row("SELECT value FROM marks WHERE name = 'revision'", [], |r| r.get::<_, i64>(0))?;
        Ok(Ok(Revision(mark.unsigned_abs())))
    }

    pub fn transaction(&mut self) -> Result<Transaction<'_>, rusqlite::Error> {
        self.db.transaction_with_behavior(TransactionBehavior::Immediate)
    }

    /// Copies the log into the database and, when more than half of that is empty, writes it anew.
    pub fn compact(&self) -> Result<(), Error> {
        let compact = || -> rusqlite::Result<()> {
            let pragma = |name| self.db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            if pragma("freelist_count")? * 2 > pragma("page_count")? {
                self.db.execute_batch("VACUUM")?;
            }
            self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        };
        compact().map_err(|e| self.failure(&e))
    }

    /// Folds the log into the database and closes it: one file remains.
    pub fn close(self) -> Result<(), Error> {
        let path = self.path.clone();
        let result = self.db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
        let closed = result.and_then(|_| self.db.close().map_err(|(_, e)| e));
        closed.map_err(|e| failure(&path, &e))
    }

    /// An error of a write, in the words of the store.
    pub fn failure(&self, e: &rusqlite::Error) -> Error {
        failure(&self.path, e)
    }

    fn corrupt(&self, reason: String) -> OpenError {
        OpenError::Corrupt { file: self.path.clone(), reason }
    }

    fn refusal(&self, e: rusqlite::Error) -> OpenError {
        let file = self.path.clone();
        match e.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => self.corrupt(e.to_string()),
            Some(ErrorCode::DatabaseBusy) => OpenError::InUse { file },
            _ => match e {
                rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::Utf8Error(..)
                | rusqlite::Error::QueryReturnedNoRows => self.corrupt(e.to_string()),
                source => OpenError::Sqlite { file, source },
            },
        }
    }
}

fn failure(path: &Path, e: &rusqlite::Error) -> Error {
    let file = path.to_owned();
    match e.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::Full { file },
        // SQLite says so, or that input and output failed, by what it was doing.
        _ if disk::is_read_only(path) => Error::ReadOnly { file },
        _ => Error::Disk { file, reason: e.to_string() },
    }
}

/// One server per database: an advisory lock on a file beside it, which the kernel drops when the process ends.
fn lock(path: &Path) -> Result<fs::File, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let io = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::ReadOnlyFilesystem => OpenError::ReadOnly { file: path.to_owned() },
        _ => OpenError::Io { file: path.to_owned(), source },
    };
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&name).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::InUse { file: path.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(io(source)),
    }
}

pub fn insert(tx: &Transaction<'_>, id: i64, key: &Key, revision: Revision, text: &[u8]) -> rusqlite::Result<()> {
    let mut insert = tx.prepare_cached(
        "INSERT INTO objects (id, resource, namespace, name, revision, json) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let values = params![id, &*key.resource, &*key.namespace, &*key.name, revision.0.cast_signed(), text];
    insert.execute(values).map(drop)
}

pub fn update(tx: &Transaction<'_>, id: i64, revision: Revision, text: &[u8]) -> rusqlite::Result<()> {
    let mut update = tx.prepare_cached("UPDATE objects SET revision = ?2, json = ?3 WHERE id = ?1")?;
    update.execute(params![id, revision.0.cast_signed(), text]).map(drop)
}

pub fn delete(tx: &Transaction<'_>, id: i64) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM objects WHERE id = ?1")?.execute([id]).map(drop)
}

pub fn mark(tx: &Transaction<'_>, revision: Revision) -> rusqlite::Result<()> {
    let mut update = tx.prepare_cached("UPDATE marks SET value = ?1 WHERE name = 'revision'")?;
    update.execute([revision.0.cast_signed()]).map(drop)
}
