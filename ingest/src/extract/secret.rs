//! A source's password, from wherever the settings say it is.
//!
//! Settings enter; the same settings with the password filled in leave, once a connection, so that a changed password is
//! taken up. It comes from the environment, a file or a command, and is in no error and no log line.

use std::process::Stdio;
use std::time::Duration;

use schemas::Sensitive;
use tokio::process::Command;

use super::source::Worker;
use crate::error::Error;
use crate::settings::SourceSettings;

/// A command that takes longer is ended.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// Fills in `password` from `password_file` or `password_command`.
///
/// # Errors
/// `Settings` when more than one place is named, a file cannot be read, a command fails, or nothing is there.
pub fn resolve(settings: &SourceSettings, worker: &Worker) -> Result<SourceSettings, Error> {
    let mut resolved = settings.clone();
    let found = match (&settings.password, &settings.password_file, &settings.password_command) {
        (_, None, None) => return Ok(resolved),
        (None, Some(file), None) => std::fs::read_to_string(file)
            .map_err(|error| Error::settings(format!("could not read password_file {}: {error}", file.display())))?,
        (None, None, Some(command)) => worker.block_on(run(command))??,
        _ => return Err(Error::settings("has more than one of `password`, `password_file` and `password_command`")),
    };
    let password = found.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Error::settings("its password_file or password_command gives nothing"));
    }
    resolved.password = Some(Sensitive::new(password.to_string()));
    Ok(resolved)
}

/// The output of a shell command. What it says of an error is on Quad's own standard error.
async fn run(command: &str) -> Result<String, Error> {
    let wrong = |what: String| Error::settings(format!("password_command {what}; run it by hand as Quad's user"));
    let mut shell = Command::new("sh");
    let running =
        shell.arg("-c").arg(command).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true).output();
    let ended = tokio::time::timeout(COMMAND_TIMEOUT, running).await;
    let output = ended.map_err(|_| wrong(format!("took more than {} s", COMMAND_TIMEOUT.as_secs())))?;
    let output = output.map_err(|error| wrong(format!("could not be run: {error}")))?;
    if !output.status.success() {
        return Err(wrong(format!("failed with {}", output.status)));
    }
    String::from_utf8(output.stdout).map_err(|_| wrong("gave bytes that are not UTF-8".to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_password_comes_from_one_place() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("password");
        std::fs::write(&file, "s3 cret\n").expect("writes");
        let of = || SourceSettings::of("x");
        let command = |text: &str| SourceSettings { password_command: Some(text.into()), ..of() };
        let given = Some(Sensitive::new("given".to_string()));
        let cases = [
            SourceSettings { password: given.clone(), ..of() },
            SourceSettings { password_file: Some(file.clone()), ..of() },
            command("printf 'a b\\n'"),
            of(),
            SourceSettings { password_file: Some(file.clone()), password: given, ..of() },
            SourceSettings { password_file: Some("nowhere".into()), ..of() },
            command("exit 3"),
            command("true"),
        ];
        let handle = tokio::runtime::Handle::current();
        let worker = Worker::alone(&crate::tests::settings(folder.path()), handle);
        let told = tokio::task::spawn_blocking(move || {
            let told = cases.iter().map(|case| match resolve(case, &worker) {
                Ok(resolved) => format!("{:?}\n", resolved.password.as_ref().map(|password| password.expose().clone())),
                Err(error) => format!("{error}\n"),
            });
            told.collect::<String>()
        });
        expect![[r#"
            Some("given")
            Some("s3 cret")
            Some("a b")
            None
            has more than one of `password`, `password_file` and `password_command`
            could not read password_file nowhere: No such file or directory (os error 2)
            password_command failed with exit status: 3; run it by hand as Quad's user
            its password_file or password_command gives nothing
        "#]]
        .assert_eq(&told.await.expect("resolves"));
    }
}
