//! Opening the journal's file: its folder, its version, its settings, and what to do with a broken one.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};

use super::schema::{APPLICATION, STEPS, view};

/// How long a statement waits for another process that holds the file.
const BUSY: Duration = Duration::from_secs(1);
/// The write-ahead log is cut back to this after a checkpoint, bytes.
const LOG_BYTES: u32 = 16 << 20;

/// Why the journal cannot be opened, read or written. Says which file and what to do; holds no entry's content.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Written by a later version of this program.
    #[error(
        "{path} has journal version {found} and this program knows {known}: use a newer wattroute, or another journal.path"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: usize,
    },
    /// A database of another program.
    #[error("{0} is a database of another program: choose another journal.path")]
    Foreign(PathBuf),
    /// There is no such file.
    #[error("{0} does not exist: nothing was recorded there yet")]
    Missing(PathBuf),
    /// Not a database, or damaged.
    #[error("{0} is damaged: it is moved aside and a new one begun")]
    Damaged(PathBuf),
    /// Another process holds it.
    #[error("{0} is locked by another process")]
    Locked(PathBuf),
    /// The file or its folder may not be written.
    #[error("{0} cannot be written: the file or its folder is read-only")]
    ReadOnly(PathBuf),
    /// No space.
    #[error("{0} cannot grow: the disk is full")]
    Full(PathBuf),
    /// The operating system refused.
    #[error("{path} cannot be used: {kind}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        kind: std::io::ErrorKind,
    },
    /// Anything else of SQLite's, by its code.
    #[error("{path}: SQLite error {code}")]
    Sql {
        /// The file.
        path: PathBuf,
        /// SQLite's extended code, or the driver's kind of error.
        code: String,
    },
}

impl JournalError {
    /// From the driver's error; its text is dropped because it could repeat a value.
    pub fn of(path: &Path, error: &sqlx::Error) -> Self {
        let path = path.to_owned();
        let code = error.as_database_error().and_then(|e| e.code()).unwrap_or_default();
        let extended: u32 = code.parse().unwrap_or(0);
        match (extended & 0xff, error) {
            (5 | 6, _) => Self::Locked(path),
            (8, _) => Self::ReadOnly(path),
            (11 | 26, _) => Self::Damaged(path),
            (13, _) => Self::Full(path),
            (14, _) => Self::Io { path, kind: std::io::ErrorKind::PermissionDenied },
            (_, sqlx::Error::Io(e)) => Self::Io { path, kind: e.kind() },
            (0, sqlx::Error::WorkerCrashed) => Self::Sql { path, code: "worker crashed".to_owned() },
            (0, _) => Self::Sql { path, code: "unknown".to_owned() },
            _ => Self::Sql { path, code: code.into_owned() },
        }
    }
}

/// Opens for writing: creates folder and file if missing, checks whose it is, migrates, sets the log.
pub async fn open(path: &Path) -> Result<SqliteConnection, JournalError> {
    create(path)?;
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY).disable_statement_logging();
    let sql = |e: sqlx::Error| JournalError::of(path, &e);
    let mut db = options.connect().await.map_err(sql)?;
    let version = version(&mut db, path).await?;
    // Must come before the first table and before the log: it shapes page 1.
    for pragma in [
        "PRAGMA page_size = 8192",
        "PRAGMA auto_vacuum = INCREMENTAL",
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = NORMAL",
    ] {
        sqlx::raw_sql(pragma).execute(&mut db).await.map_err(sql)?;
    }
    sqlx::raw_sql(AssertSqlSafe(format!("PRAGMA journal_size_limit = {LOG_BYTES}")))
        .execute(&mut db)
        .await
        .map_err(sql)?;
    for (at, step) in STEPS.iter().enumerate().skip(version) {
        let mut tx = db.begin().await.map_err(sql)?;
        sqlx::raw_sql(*step).execute(&mut *tx).await.map_err(sql)?;
        let mark = format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {}", at + 1);
        sqlx::raw_sql(AssertSqlSafe(mark)).execute(&mut *tx).await.map_err(sql)?;
        tx.commit().await.map_err(sql)?;
    }
    Ok(db)
}

/// Opens for reading, with the view `entries` of any version's; never creates, migrates or writes entries.
pub async fn open_to_read(path: &Path) -> Result<SqliteConnection, JournalError> {
    if !path.is_file() {
        return Err(JournalError::Missing(path.to_owned()));
    }
    // A file with a log can only be read when its index may be written; a copy in a read-only folder has no log.
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY).disable_statement_logging();
    let fixed = options.clone().read_only(true).immutable(true);
    let log = PathBuf::from(format!("{}-wal", path.display()));
    let alone = !log.exists() && path.metadata().is_ok_and(|m| m.permissions().readonly());
    let chosen = if alone { fixed } else { options };
    let mut db = chosen.connect().await.map_err(|e| JournalError::of(path, &e))?;
    let version = version(&mut db, path).await?;
    if version == 0 {
        return Err(JournalError::Foreign(path.to_owned()));
    }
    let sql = |e: sqlx::Error| JournalError::of(path, &e);
    sqlx::raw_sql("PRAGMA temp_store = MEMORY").execute(&mut db).await.map_err(sql)?;
    sqlx::raw_sql(AssertSqlSafe(view(version))).execute(&mut db).await.map_err(sql)?;
    Ok(db)
}

/// Renames a damaged file and its log, so that nothing in them is lost, and says where they are now.
pub fn set_aside(path: &Path, unix_ms: u64) -> Result<PathBuf, JournalError> {
    let io = |e: std::io::Error| JournalError::Io { path: path.to_owned(), kind: e.kind() };
    let aside = PathBuf::from(format!("{}.damaged-{unix_ms}", path.display()));
    std::fs::rename(path, &aside).map_err(io)?;
    for tail in ["-wal", "-shm"] {
        let log = PathBuf::from(format!("{}{tail}", path.display()));
        if log.exists() {
            std::fs::rename(&log, format!("{}{tail}", aside.display())).map_err(io)?;
        }
    }
    Ok(aside)
}

async fn version(db: &mut SqliteConnection, path: &Path) -> Result<usize, JournalError> {
    let sql = |e: sqlx::Error| JournalError::of(path, &e);
    let row = sqlx::query(
        "SELECT (SELECT application_id FROM pragma_application_id) AS app,
                (SELECT user_version FROM pragma_user_version) AS version,
                (SELECT count(*) FROM sqlite_schema) AS objects",
    )
    .fetch_one(db)
    .await
    .map_err(sql)?;
    let (app, found, objects): (i64, i64, i64) =
        (row.try_get("app").map_err(sql)?, row.try_get("version").map_err(sql)?, row.try_get("objects").map_err(sql)?);
    if app != APPLICATION && (app != 0 || found != 0 || objects != 0) {
        return Err(JournalError::Foreign(path.to_owned()));
    }
    match usize::try_from(found) {
        Ok(version) if version <= STEPS.len() => Ok(version),
        _ => Err(JournalError::Newer { path: path.to_owned(), found, known: STEPS.len() }),
    }
}

/// Folder and file for this user only: tenants and models asked for are nobody else's business.
fn create(path: &Path) -> Result<(), JournalError> {
    let io = |e: std::io::Error| JournalError::Io { path: path.to_owned(), kind: e.kind() };
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty() && !f.exists()) {
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(folder).map_err(io)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(io(e)),
    }
}
