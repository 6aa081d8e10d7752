//! The deployment of `docker-compose.yml` against what is really there: the image's files, the tests' Kafka, and the command
//! line with its settings.
//!
//! Enters: the compose file, `.env.example`, the Dockerfile, and the `quad` binary built with these tests. Leaves: what a
//! reader of the compose file would only find out on a machine with Docker. No container runs here: each quad service's
//! command is run with `--check`, which validates its settings and ends before a port is bound.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::files::{Problem, Tree, root};

const COMPOSE: &str = "docker-compose.yml";
const EXAMPLE: &str = ".env.example";
/// The image that the Dockerfile builds.
const IMAGE: &str = "quad:local";
/// What the command line exits with when settings are wrong.
const EXIT_BAD_SETTINGS: i32 = 64;

/// Every service is pinned, bounded, watched, restarted and reachable from this host only, and what it names exists.
pub fn deployment_is_complete(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    let Some(compose) = read_compose(tree, &mut problems) else { return problems };
    let Some(example) = read_example(tree, &mut problems) else { return problems };
    for (name, service) in services(&compose) {
        let mut wrong = |message: String| problems.push(Problem::of(COMPOSE, format!("service {name}: {message}")));
        for (pointer, why) in [
            ("/restart", "say when it is restarted"),
            ("/healthcheck/test", "say how its health is checked"),
            ("/deploy/resources/limits/cpus", "limit its CPUs"),
            ("/deploy/resources/limits/memory", "limit its memory"),
            ("/logging/options/max-size", "limit its log"),
        ] {
            if service.pointer(pointer).is_none() {
                wrong(format!("has no {}; {why}", &pointer[1..].replace('/', ".")));
            }
        }
        let image = service["image"].as_str().unwrap_or_default();
        if image.ends_with(":latest") || !image.contains(':') {
            wrong(format!("image {image:?} is not pinned; give it a version"));
        }
        for port in texts(&service["ports"]).iter().filter(|port| !port.starts_with("127.0.0.1:")) {
            wrong(format!("port {port} is open to the network; bind it to 127.0.0.1"));
        }
        for volume in texts(&service["volumes"]) {
            let volume = volume.split(':').next().unwrap_or_default();
            if compose["volumes"].get(volume).is_none() {
                wrong(format!("volume {volume} is not a named volume of this file; declare it below `volumes`"));
            }
        }
        for dependency in service["depends_on"].as_object().into_iter().flatten().map(|(dependency, _)| dependency) {
            if compose["services"].get(dependency).is_none() {
                wrong(format!("depends on {dependency}, which is no service"));
            }
        }
        for (key, value) in environment(service) {
            let secret =
                ["PASSWORD", "SHA256", "SECRET", "TOKEN", "IDENTITY_KEY"].iter().any(|word| key.contains(word));
            if secret && !value.starts_with("${") {
                wrong(format!("{key} is written down; take it from the environment"));
            }
            if let Err(message) = interpolate(&value, &example) {
                wrong(format!("{key}: {message}"));
            }
        }
    }
    problems.extend(versions_agree(tree, &compose));
    problems.extend(image_has_its_files(tree));
    problems
}

/// The broker of the deployment is the broker of the tests, and the image is built by the Rust that the crates ask for.
fn versions_agree(tree: &Tree, compose: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut read = |path| tree.require(path, &mut problems).map(|file| file.text.clone()).unwrap_or_default();
    let (pom, dockerfile, manifest) = (read("tests/kafka/pom.xml"), read("Dockerfile"), read("Cargo.toml"));
    let tested = between(&pom, "<kafka.version>", "</kafka.version>").unwrap_or_default();
    let deployed = compose["services"]["kafka"]["image"].as_str().unwrap_or_default();
    if deployed != format!("apache/kafka:{tested}") {
        problems.push(Problem::of(
            COMPOSE,
            format!("runs {deployed}, tests/kafka/pom.xml tests {tested}; make them equal"),
        ));
    }
    let rust = between(&manifest, "rust-version = \"", "\"").unwrap_or_default();
    if !dockerfile.contains(&format!("FROM rust:{rust}-")) {
        problems.push(Problem::of(
            "Dockerfile",
            format!("does not build with rust:{rust}, the crates' rust-version; use it"),
        ));
    }
    problems
}

fn image_has_its_files(tree: &Tree) -> Vec<Problem> {
    let missing = copied_folders(tree).into_iter().filter(|folder| !root().join(folder).is_dir());
    missing
        .map(|folder| Problem::of("Dockerfile", format!("copies {folder}, which is not there; mend the path")))
        .collect()
}

/// Each quad service starts with the settings it is given, and a wrong key among them is noticed.
pub fn settings_are_accepted(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    let Some(compose) = read_compose(tree, &mut problems) else { return problems };
    let Some(example) = read_example(tree, &mut problems) else { return problems };
    let image = match Image::lay_out(tree, &compose) {
        Ok(image) => image,
        Err(error) => return vec![Problem::of(COMPOSE, format!("could not lay out the image's files: {error}"))],
    };
    let mut checked = 0;
    for (name, service) in services(&compose).filter(|(_, service)| service["image"] == IMAGE) {
        checked += 1;
        let mut wrong = |message: String| problems.push(Problem::of(COMPOSE, format!("service {name}: {message}")));
        let command = [texts(&service["command"]), vec!["--check".to_owned()]].concat();
        let mut settings: BTreeMap<String, String> = environment(service)
            .into_iter()
            .map(|(key, value)| (key, interpolate(&value, &example).unwrap_or_default()))
            .collect();
        let output = image.run(&command, &settings);
        if !output.status.success() {
            wrong(format!("`quad {}` refuses its settings: {}", command.join(" "), said(&output)));
        }
        settings.insert("QUAD_QUERY__NO_SUCH_KEY".to_owned(), "1".to_owned());
        let output = image.run(&command, &settings);
        if output.status.code() != Some(EXIT_BAD_SETTINGS) || !said(&output).contains("no_such_key") {
            wrong(format!(
                "`quad {}` must exit {EXIT_BAD_SETTINGS} and name an unknown key; it said: {}",
                command.join(" "),
                said(&output)
            ));
        }
        // A health check that is a quad command must be one.
        let health = texts(&service["healthcheck"]["test"]);
        if let [form, program, arguments @ ..] = health.as_slice()
            && (form.as_str(), program.as_str()) == ("CMD", "quad")
        {
            let output = image.run(&[arguments, &["--help".to_owned()]].concat(), &BTreeMap::new());
            if !output.status.success() {
                wrong(format!("its health check `quad {}` is no command: {}", arguments.join(" "), said(&output)));
            }
        }
    }
    if checked != 3 {
        problems.push(Problem::of(
            COMPOSE,
            format!("{checked} services run the image {IMAGE}; extract, land and query should"),
        ));
    }
    problems
}

/// The files of the image, laid out in a folder of this machine.
struct Image {
    folder: tempfile::TempDir,
}

impl Image {
    /// What the Dockerfile copies, by links, and the settings that the compose file mounts.
    fn lay_out(tree: &Tree, compose: &Value) -> std::io::Result<Image> {
        let folder = tempfile::tempdir()?;
        for path in copied_folders(tree) {
            let inside = folder.path().join(&path);
            fs::create_dir_all(inside.parent().unwrap_or(Path::new(".")))?;
            std::os::unix::fs::symlink(root().join(&path), inside)?;
        }
        let settings = compose["configs"]["quad.toml"]["content"].as_str().unwrap_or_default();
        fs::write(folder.path().join("quad.toml"), settings)?;
        Ok(Image { folder })
    }

    /// Runs `quad` in the image's working folder with these settings and nothing else from this machine.
    fn run(&self, arguments: &[String], environment: &BTreeMap<String, String>) -> Output {
        Command::new(env!("CARGO_BIN_EXE_quad"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs(environment)
            .env("QUAD_CONFIG", self.folder.path().join("quad.toml"))
            .output()
            .expect("the quad binary can be run")
    }
}

fn read_compose(tree: &Tree, problems: &mut Vec<Problem>) -> Option<Value> {
    let file = tree.require(COMPOSE, problems)?;
    match serde_saphyr::from_str(&file.text) {
        Ok(value) => Some(value),
        Err(error) => {
            problems.push(Problem::of(COMPOSE, format!("is not YAML: {error}")));
            None
        }
    }
}

/// The variables of `.env.example`.
fn read_example(tree: &Tree, problems: &mut Vec<Problem>) -> Option<BTreeMap<String, String>> {
    let file = tree.require(EXAMPLE, problems)?;
    let lines = file.text.lines().filter(|line| !line.starts_with('#'));
    Some(lines.filter_map(|line| line.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

fn services(compose: &Value) -> impl Iterator<Item = (&String, &Value)> {
    compose["services"].as_object().expect("services is a map").iter()
}

/// A list of texts, or nothing.
fn texts(list: &Value) -> Vec<String> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect()
}

fn environment(service: &Value) -> BTreeMap<String, String> {
    let variables = service["environment"].as_object().into_iter().flatten();
    variables
        .map(|(key, value)| (key.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect()
}

/// Replaces a value that is `${NAME}`, `${NAME:?message}` or `${NAME:-default}`, the forms this project uses.
fn interpolate(value: &str, variables: &BTreeMap<String, String>) -> Result<String, String> {
    let Some(inside) = value.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
        return if value.contains('$') {
            Err(format!("{value:?} mixes text and variables; use one variable"))
        } else {
            Ok(value.to_owned())
        };
    };
    let (name, rest) = inside.split_once(':').unwrap_or((inside, ""));
    let found = variables.get(name).cloned().or_else(|| rest.strip_prefix('-').map(str::to_owned));
    found.ok_or_else(|| format!("{name} is not in {EXAMPLE}; add it there with a comment"))
}

/// The folders that the Dockerfile's last stage copies from the repository.
fn copied_folders(tree: &Tree) -> Vec<String> {
    let text = tree.get("Dockerfile").map(|file| file.text.as_str()).unwrap_or_default();
    let last_stage = text.rsplit("\nFROM ").next().unwrap_or_default();
    let copies =
        last_stage.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|copy| !copy.starts_with("--from"));
    copies.filter_map(|copy| copy.split_whitespace().next()).map(str::to_owned).collect()
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(after).map(|(inside, _)| inside)
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)).trim().to_owned()
}
