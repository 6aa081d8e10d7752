//! One run of a tap: a child process with a group and a folder of its own.
//!
//! A command and the files for it enter; the lines of its standard output leave, each of bounded length, and at the end how it
//! ended. The files may hold secrets: only Quad's user reads them, and they are gone with the run. What the tap says on its
//! standard error becomes log lines of level debug, since it may hold rows, and without the secrets. No process is left behind.

use std::fs::{OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use schemas::Sensitive;
use tempfile::TempDir;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Tap, name};
use crate::error::Error;
use crate::extract::source::Worker;

/// The longest line of a tap.
const LINE_BYTES_MAX: usize = 16 << 20;
/// What is kept of a line of its standard error, before and after its secrets are taken out.
const SAID_BYTES_MAX: usize = 64 << 10;
const SAID_CHARS_SHOWN: usize = 1000;
/// Lines of its standard error that are logged in one run.
const SAID_LINES_MAX: usize = 1000;
/// Between being asked to end and being ended.
const GRACE: Duration = Duration::from_secs(5);

/// What a tap is given.
pub(super) struct Files<'a> {
    pub config: &'a Sensitive<String>,
    pub catalog: Option<&'a str>,
    pub state: Option<&'a str>,
}

/// A tap that runs. Whatever happens to this value, the tap and its children end.
pub(super) struct Run {
    name: String,
    child: Child,
    /// The process group, until it was ended.
    group: Option<u32>,
    out: BufReader<ChildStdout>,
    said: JoinHandle<Option<String>>,
    line: Vec<u8>,
    lines: usize,
    silence_max: Duration,
    worker: Worker,
    _folder: TempDir,
}

/// What was read of a line.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    Line,
    TooLong,
    End,
}

impl Run {
    /// Starts the tap with its files and `more` arguments.
    ///
    /// # Errors
    /// `Settings` when it cannot be run, or the temporary folder cannot be written.
    pub(super) fn start(
        tap: &Tap,
        files: &Files<'_>,
        more: &[&str],
        secrets: &[Sensitive<String>],
        worker: &Worker,
    ) -> Result<Self, Error> {
        let wrong = |error: std::io::Error| Error::settings(format!("could not write files for a tap: {error}"));
        let private = Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix("quad-tap-").permissions(private).tempdir().map_err(wrong)?;
        let mut command = Command::new(&tap.command);
        command.args(&tap.args);
        let texts =
            [("config", Some(files.config.expose().as_str())), ("catalog", files.catalog), ("state", files.state)];
        for (file, text) in texts {
            if let Some(text) = text {
                let path = folder.path().join(format!("{file}.json"));
                write_private(&path, text).map_err(wrong)?;
                command.arg(format!("--{file}")).arg(path);
            }
        }
        command.args(more).current_dir(folder.path()).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Quad's own settings may be the secrets of other sources.
        for (variable, _) in std::env::vars_os().filter(|(variable, _)| variable.to_string_lossy().starts_with("QUAD_"))
        {
            command.env_remove(variable);
        }
        let (name, secrets) = (name(&tap.command), needles(secrets));
        let started = worker.block_on(async {
            let mut child = command.spawn()?;
            let (out, said) = (child.stdout.take(), child.stderr.take());
            let said = BufReader::new(said.expect("it is piped"));
            let said = tokio::spawn(log_lines(name.clone(), said, secrets));
            Ok((child, BufReader::with_capacity(64 << 10, out.expect("it is piped")), said))
        })?;
        let (child, out, said) = started.map_err(|error: std::io::Error| {
            Error::settings(format!(
                "could not run the tap `{}`: {error}; is it installed, and `command` right?",
                tap.command
            ))
        })?;
        let (group, silence_max) = (child.id(), Duration::from_secs(tap.timeout_s));
        let worker = worker.clone();
        Ok(Self { name, child, group, out, said, line: Vec::new(), lines: 0, silence_max, worker, _folder: folder })
    }

    /// The next line; none at the end.
    ///
    /// # Errors
    /// `Source` when it is too long or none comes in time; when the process is stopping.
    pub(super) fn line(&mut self) -> Result<Option<&[u8]>, Error> {
        self.line.clear();
        self.lines += 1;
        let (out, line) = (&mut self.out, &mut self.line);
        match self.worker.within(self.silence_max, read_line(out, line, LINE_BYTES_MAX))? {
            Ok(Ok(Read::Line)) => Ok(Some(&self.line)),
            Ok(Ok(Read::End)) => Ok(None),
            Ok(Ok(Read::TooLong)) => Err(Error::source(format!("is longer than {LINE_BYTES_MAX} bytes"))),
            Ok(Err(error)) => Err(Error::source(format!("could not be read: {error}"))),
            Err(_) => Err(Error::source(format!(
                "did not come within {} s: the tap hangs, or `timeout_s` of `[singer]` is too short",
                self.silence_max.as_secs()
            ))),
        }
    }

    /// An error of the last line, with its place.
    pub(super) fn at_line(&self, error: Error) -> Error {
        Error { message: format!("line {} of {} {}", self.lines, self.name, error.message), ..error }
    }

    /// Waits for the end; call it when there is no further line.
    ///
    /// # Errors
    /// `Source` when it ended badly, or has closed its output and does not end.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        let (name, silence_max) = (self.name.clone(), self.silence_max);
        let status = self.worker.within(silence_max, self.child.wait())?;
        let status = status
            .map_err(|_| {
                Error::source(format!("{name} does not end within {} s of its last line", silence_max.as_secs()))
            })?
            .map_err(|error| Error::internal("wait for a tap", error))?;
        self.end();
        if status.success() {
            return Ok(());
        }
        let cause = self.worker.within(GRACE, &mut self.said)?;
        let cause = cause.ok().and_then(Result::ok).flatten().map_or(String::new(), |cause| format!(" after {cause}"));
        Err(Error::source(format!(
            "{name} ended with {status}{cause}; what it said is in the log with \"ingest::extract::singer=debug\" in log.filter"
        )))
    }

    /// Ends the tap and whatever it has started.
    fn end(&mut self) {
        let Some(group) = self.group.take() else { return };
        let child = &mut self.child;
        self.worker.finish(async {
            // A tap may want to tidy up behind it.
            if child.try_wait().is_ok_and(|ended| ended.is_none()) {
                signal("TERM", group).await;
                let _ = timeout(GRACE, child.wait()).await;
            }
            signal("KILL", group).await;
            let _ = child.wait().await;
        });
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.end();
    }
}

/// Signals every process of a group; that there is none left is no error.
async fn signal(signal: &str, group: u32) {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("kill -s {signal} -- -{group}"));
    if let Err(error) = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().await {
        tracing::warn!(%error, "could not run sh to end a tap");
    }
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

/// Appends the next line to `line`, without its end; no more than `bytes_max` of it.
async fn read_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
    bytes_max: usize,
) -> std::io::Result<Read> {
    loop {
        let buffer = reader.fill_buf().await?;
        if buffer.is_empty() {
            return Ok(if line.is_empty() { Read::End } else { Read::Line });
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        let room = bytes_max - line.len();
        line.extend_from_slice(&part[..part.len().min(room)]);
        if part.len() > room {
            return Ok(Read::TooLong);
        }
        let taken = end.map_or(part.len(), |end| end + 1);
        reader.consume(taken);
        if end.is_some() {
            return Ok(Read::Line);
        }
    }
}

/// The texts to take out of what a tap says, the longest first: each secret as it is, as JSON, in an address, and line by line.
fn needles(secrets: &[Sensitive<String>]) -> Vec<Sensitive<String>> {
    let mut needles = Vec::new();
    for secret in secrets.iter().map(Sensitive::expose) {
        needles.push(secret.clone());
        needles.push(serde_json::Value::from(secret.as_str()).to_string().trim_matches('"').to_string());
        needles.push(url::form_urlencoded::byte_serialize(secret.as_bytes()).collect());
        needles.extend(secret.lines().filter(|line| line.len() >= 8).map(str::to_string));
    }
    needles.retain(|needle| !needle.is_empty());
    needles.sort_by_key(|needle| std::cmp::Reverse(needle.len()));
    needles.into_iter().map(Sensitive::new).collect()
}

/// Logs what a tap says and reads on, so that it is never held up; the kind of the last exception it told of.
async fn log_lines(
    tap: String,
    mut said: impl AsyncBufRead + Unpin,
    secrets: Vec<Sensitive<String>>,
) -> Option<String> {
    let (mut lines, mut cause) = (0, None);
    let (mut line, mut is_rest) = (Vec::new(), false);
    loop {
        line.clear();
        let read = read_line(&mut said, &mut line, SAID_BYTES_MAX).await;
        match read {
            Ok(Read::End) | Err(_) => break,
            // The rest of a long line is not told: a secret may stand across the cut.
            _ if is_rest => is_rest = read.is_ok_and(|read| read == Read::TooLong),
            Ok(read) => {
                is_rest = read == Read::TooLong;
                let text = scrubbed(&String::from_utf8_lossy(&line), &secrets);
                cause = exception(&text).or(cause);
                lines += 1;
                if lines <= SAID_LINES_MAX {
                    tracing::debug!(tap, "{}", text.chars().take(SAID_CHARS_SHOWN).collect::<String>());
                }
            }
        }
    }
    if lines > SAID_LINES_MAX {
        tracing::debug!(tap, lines, "a tap says more than is logged");
    }
    cause
}

fn scrubbed(text: &str, secrets: &[Sensitive<String>]) -> String {
    secrets.iter().fold(text.to_string(), |text, secret| text.replace(secret.expose(), "***"))
}

/// The kind of a Python exception, such as `psycopg2.OperationalError`: a name, never what it says.
fn exception(line: &str) -> Option<String> {
    let name = line.split(':').next().unwrap_or_default();
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'_');
    let is_kind = ["Error", "Exception"].iter().any(|end| name.ends_with(end)) && name.len() <= 100;
    (is_name && is_kind).then(|| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[tokio::test]
    async fn lines_are_bounded() {
        let mut reader = BufReader::with_capacity(2, &b"ab\n\ncdefgh\nx"[..]);
        let mut told = String::new();
        loop {
            let mut line = Vec::new();
            let read = read_line(&mut reader, &mut line, 4).await.expect("reads");
            told += &format!("{read:?} {}\n", String::from_utf8_lossy(&line));
            if read != Read::Line {
                break;
            }
        }
        expect![[r#"
            Line ab
            Line 
            TooLong cdef
        "#]]
        .assert_eq(&told);
    }

    #[test]
    fn secrets_are_taken_out_however_they_are_written() {
        let secrets = ["p\"w/1", "s", "-----BEGIN-----\nabcdefgh\n"].map(|secret| Sensitive::new(secret.to_string()));
        let told = |line: &str| scrubbed(line, &needles(&secrets));
        let lines = ["pg://u:p%22w%2F1@h", "{\"password\":\"p\\\"w/1\"}", "a 'p\"w/1' b", "key abcdefgh", "is"];
        expect![[r#"
            pg://u:***@h
            {"pa******word":"***"}
            a '***' b
            key ***
            i***"#]]
        .assert_eq(&lines.map(told).join("\n"));
    }

    #[test]
    fn of_an_exception_only_its_kind_is_told() {
        let kinds =
            ["psycopg2.OperationalError: no 0026", "KeyError", "INFO Error: x", "Trace Error", ""].map(exception);
        let expected = [Some("psycopg2.OperationalError"), Some("KeyError"), None, None, None];
        assert_eq!(kinds, expected.map(|kind| kind.map(str::to_string)));
    }
}
