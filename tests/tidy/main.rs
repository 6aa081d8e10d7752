//! Holds the project's own rules over its own files, so that no review has to.
//!
//! Enters: every text file of the work tree (`files`). Leaves: one test a rule; a broken rule fails with `file:line`, what
//! is wrong there and how to mend it. `shape` holds how crates and files are built, `code` what source may say, `manifests`
//! the Cargo files, `documents` the prose and scripts, `observe` what
//! is said of metrics, and `compose` the deployment against the real command line. Nothing
//! here changes a file, and nothing builds or starts a service.

mod code;
mod compose;
mod documents;
mod files;
mod manifests;
mod observe;
mod promql;
mod shape;

use files::{Problem, Tree};

/// Reads the tree, runs one rule and fails with all that it found.
fn hold(rule: impl FnOnce(&Tree) -> Vec<Problem>) {
    let problems = rule(&Tree::read());
    assert!(
        problems.is_empty(),
        "{} to mend:\n  {}\n",
        problems.len(),
        problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n  ")
    );
}

#[test]
fn every_crate_is_its_folder() {
    hold(shape::crates_are_folders);
}

#[test]
fn lib_files_tell_the_story_only() {
    hold(shape::lib_files_hold_no_logic);
}

#[test]
fn files_and_functions_are_short() {
    hold(shape::files_and_functions_are_short);
}

#[test]
fn no_mod_rs() {
    hold(shape::no_mod_rs);
}

#[test]
fn every_file_says_what_it_is() {
    hold(shape::files_open_with_docs);
}

#[test]
fn libraries_have_one_home() {
    hold(code::libraries_have_one_home);
}

#[test]
fn no_unwrap_outside_tests() {
    hold(code::no_unwrap_outside_tests);
}

#[test]
fn tests_neither_sleep_nor_hide() {
    hold(code::tests_neither_sleep_nor_hide);
}

#[test]
fn metrics_are_named_alike() {
    hold(code::metrics_are_named_alike);
}

#[test]
fn dashboards_name_what_exists() {
    hold(observe::dashboards_name_what_exists);
}

#[test]
fn metrics_are_documented() {
    hold(observe::metrics_are_documented);
}

#[test]
fn nothing_is_left_for_later() {
    hold(code::nothing_left_for_later);
}

#[test]
fn dependencies_have_reasons() {
    hold(manifests::dependencies_have_reasons);
}

#[test]
fn dependencies_run_one_way() {
    hold(manifests::dependencies_run_one_way);
}

#[test]
fn settings_are_documented() {
    hold(documents::settings_are_documented);
}

#[test]
fn documents_are_true() {
    hold(documents::documents_are_true);
}

#[test]
fn tables_are_listed() {
    hold(documents::tables_are_listed);
}

#[test]
fn no_path_of_one_machine() {
    hold(documents::no_path_of_one_machine);
}

#[test]
fn scripts_are_well_formed() {
    hold(documents::scripts_are_well_formed);
}

#[test]
fn compose_is_complete() {
    hold(compose::deployment_is_complete);
}

#[test]
fn compose_settings_are_accepted() {
    hold(compose::settings_are_accepted);
}
