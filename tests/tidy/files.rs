//! The files of the work tree, as the rules see them.
//!
//! Enters: the repository on disk. Leaves: each text file with its path from the root, and each Rust file parsed. What
//! Git ignores (build results, data, virtual environments) and binary files are left out; a Rust file that does not parse
//! ends the test, for the compiler would refuse it too.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// What holds results or settings of one machine, never sources; the same as in `.gitignore`.
const IGNORED: &[&str] = &["target", "data", "__pycache__", ".git", ".venv", "node_modules", ".env", "quad.toml"];

/// All text files, ordered by path.
pub struct Tree {
    pub files: Vec<File>,
}

/// One text file.
pub struct File {
    /// From the repository's root, with `/` between the parts.
    pub path: String,
    pub text: String,
    /// Whether the whole file is compiled for tests only.
    pub is_test: bool,
}

/// A broken rule.
pub struct Problem {
    place: String,
    message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl Problem {
    /// A problem of a whole file, or of one that should be there.
    pub fn of(path: &str, message: impl Into<String>) -> Problem {
        Problem { place: path.to_owned(), message: message.into() }
    }
}

impl Tree {
    pub fn read() -> Tree {
        let root = root();
        let mut files = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder can be listed").flatten() {
                let (path, name) = (entry.path(), entry.file_name());
                if IGNORED.iter().any(|ignored| name == *ignored) {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(text) = fs::read_to_string(&path) {
                    files.push(File { path: relative(&root, &path), text, is_test: false });
                }
            }
        }
        files.sort_by(|left, right| left.path.cmp(&right.path));
        let mut tree = Tree { files };
        tree.mark_tests();
        tree
    }

    /// A file is for tests only when it belongs to a package's `tests/` (the simulated campus there is a program, not a
    /// test), or to a module that its parent declares with `#[cfg(test)]`.
    fn mark_tests(&mut self) {
        let modules: Vec<String> = self.rust().flat_map(File::test_modules).collect();
        for file in self.files.iter_mut().filter(|file| file.path.ends_with(".rs")) {
            let in_tests = file.path.starts_with("tests/") || file.path.contains("/tests/");
            let module = file.path.trim_end_matches(".rs");
            let in_module = modules.iter().any(|test| module == test || module.starts_with(&format!("{test}/")));
            file.is_test = in_module || in_tests && !file.path.contains("/src/");
        }
    }

    pub fn get(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The file of that path, or the problem that it is missing.
    pub fn require(&self, path: &str, problems: &mut Vec<Problem>) -> Option<&File> {
        let file = self.get(path);
        if file.is_none() {
            problems.push(Problem::of(path, "this file is missing; write it"));
        }
        file
    }

    pub fn ending<'a>(&'a self, end: &'a str) -> impl Iterator<Item = &'a File> {
        self.files.iter().filter(move |file| file.path.ends_with(end))
    }

    pub fn rust(&self) -> impl Iterator<Item = &File> {
        self.ending(".rs")
    }

    /// The folders of the workspace's members, as the root manifest lists them; `""` is the root package.
    pub fn members(&self) -> Vec<String> {
        let root = self.get("Cargo.toml").expect("the workspace has a root manifest");
        let manifest: toml::Table = root.text.parse().expect("Cargo.toml is TOML");
        let members = manifest["workspace"]["members"].as_array().expect("members is a list");
        let members = members.iter().map(|member| member.as_str().expect("a member is text").to_owned());
        std::iter::once(String::new()).chain(members).collect()
    }
}

impl File {
    pub fn at(&self, line: usize, message: impl Into<String>) -> Problem {
        Problem { place: format!("{}:{line}", self.path), message: message.into() }
    }

    /// Lines with their numbers, from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    pub fn parsed(&self) -> syn::File {
        syn::parse_file(&self.text).unwrap_or_else(|error| panic!("{}: does not parse: {error}", self.path))
    }

    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// The modules this file declares for tests only, as paths without the ending: `topic/src/conformance`.
    fn test_modules(&self) -> Vec<String> {
        let folder = match self.name() {
            "lib.rs" | "main.rs" => self.path.rsplit_once('/').map_or("", |(folder, _)| folder),
            _ => self.path.trim_end_matches(".rs"),
        };
        let modules = self.parsed().items.into_iter().filter_map(|item| match item {
            syn::Item::Mod(module) if module.content.is_none() && module.attrs.iter().any(is_test_attribute) => {
                Some(module.ident)
            }
            _ => None,
        });
        modules.map(|name| format!("{folder}/{name}")).collect()
    }
}

/// `#[cfg(test)]`, `#[test]`, `#[tokio::test]`.
pub fn is_test_attribute(attribute: &syn::Attribute) -> bool {
    let path = attribute.path();
    if path.is_ident("cfg") {
        return attribute.parse_args::<syn::Path>().is_ok_and(|inside| inside.is_ident("test"));
    }
    path.segments.last().is_some_and(|last| last.ident == "test")
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn relative(root: &Path, path: &Path) -> String {
    let inside = path.strip_prefix(root).expect("every file is inside the root");
    inside.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}
