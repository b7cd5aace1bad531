//! What is left of a failure, as a user of `mem-event test` finds it.

use crate::support::command;
use harness::machine::folder::RunFolder;
use harness::trace::replay::replay_file;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder of scenarios.
struct Project {
    folder: RunFolder,
}

const GUEST: &str = "[machine]\nguest = \"touch\"\n[consumers.listener]\n";
const WATCH: &str = "[[steps]]\nat = 1\ndo = [{ watch = { frames = \"READ\", stop = \"r\" } }]\n";

impl Project {
    fn with(scenarios: &[(&str, String)]) -> Project {
        let folder = RunFolder::create().unwrap();
        std::fs::create_dir(folder.file("scenarios")).unwrap();
        let project = Project { folder };
        for (name, text) in scenarios {
            std::fs::write(project.at(&format!("{name}.toml")), text).unwrap();
        }
        project
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.file("scenarios").join(name)
    }

    /// Exit code and output of `mem-event test` for its scenarios.
    fn test(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = command(&self.folder);
        let output = command.arg("test").arg(self.folder.file("scenarios")).args(arguments).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    }
}

fn scenario(more: &str) -> String {
    format!("version = 1\nabout = \"a scenario\"\n{GUEST}{more}")
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn a_failure_leaves_its_trace_its_picture_and_what_was_written_and_a_success_removes_them() {
    let project = Project::with(&[("watched", scenario(WATCH))]);
    assert_eq!(project.test(&["--accept"]).0, Some(0));
    assert!(!project.at("watched.failed").exists(), "what is accepted is no failure");
    replace(&project.at("watched.toml"), "READ", "WRITTEN");
    let junit = project.folder.file("junit.xml");
    let (code, said) = project.test(&["--junit", junit.to_str().unwrap()]);
    let evidence = project.at("watched.failed");
    assert!(code == Some(5) && said.contains(&format!("evidence: {}", evidence.display())), "{said}");
    let text = |name: &str| std::fs::read_to_string(evidence.join(name)).unwrap();
    assert!(text("console.txt").contains("verdict: success"), "{}", text("console.txt"));
    assert!(text("sequence.txt").contains("checkpoint 1"));
    assert!(text("picture.html").contains("<html"));
    let failure = text("failure.txt");
    let again = format!("mem-event test {}", project.at("watched.toml").display());
    assert!(failure.contains("the sequence has changed") && failure.contains(&again), "{failure}");
    assert_eq!(replay_file(&evidence.join("trace"), false).unwrap().exit_code(), 0);

    let [failure, output] = &as_python_reads(&junit)[..] else { panic!("two lines") };
    assert!(failure.starts_with("failure: the sequence has changed"), "{failure}");
    assert!(output.contains("verdict: success"), "{output}");
    assert!(output.contains(&format!("[[ATTACHMENT|{}]]", evidence.join("trace").display())), "{output}");

    replace(&project.at("watched.toml"), "WRITTEN", "READ");
    assert_eq!(project.test(&[]).0, Some(0));
    assert!(!evidence.exists(), "it is mended");
}

/// The only case's failure and its output, as somebody else's parser finds them in a report of JUnit; each in one line.
fn as_python_reads(report: &Path) -> Vec<String> {
    const READ: &str = "import sys, xml.etree.ElementTree as tree\n\
                        case, = tree.parse(sys.argv[1]).getroot().findall('./testsuite/testcase')\n\
                        print(case.find('failure').get('message').replace('\\n', ' '))\n\
                        print(case.find('system-out').text.replace('\\n', ' '))";
    let output = Command::new("python3").args(["-c", READ]).arg(report).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn what_a_consumer_said_is_kept_with_its_failure_and_its_last_word_is_told() {
    let speaks = "version = 1\nabout = \"speaks\"\n[machine]\nguest = \"touch\"\n\
                  [[consumers.external]]\nrings = [\"access\"]\ncommand = \"./speaks\"\n";
    let project = Project::with(&[("speaks", speaks.to_owned())]);
    std::fs::write(project.at("speaks"), "#!/bin/sh\necho of the output\necho of the error output >&2\nexit 7\n")
        .unwrap();
    std::fs::set_permissions(project.at("speaks"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let junit = project.folder.file("junit.xml");
    let (_, said) = project.test(&["--junit", junit.to_str().unwrap()]);
    assert!(said.contains("never was ready: exit status: 7; it said last: of the error output"), "{said}");
    let kept = |name: &str| std::fs::read_to_string(project.at("speaks.failed").join(name)).unwrap();
    assert_eq!(kept("consumer-1-access.stdout"), "of the output\n");
    assert_eq!(kept("consumer-1-access.stderr"), "of the error output\n");
    let report = std::fs::read_to_string(&junit).unwrap();
    let (before, after) = report.split_once("<system-err>").unwrap();
    assert!(
        before.contains("<system-out>") && before.contains("consumer-1-access.stdout:\nof the output\n"),
        "{report}"
    );
    assert!(after.contains("consumer-1-access.stderr:\nof the error output\n"), "{report}");
}

#[test]
fn evidence_goes_where_it_is_wanted_and_into_no_checkout_of_ci() {
    let project = Project::with(&[("watched", scenario(WATCH))]);
    assert_eq!(project.test(&["--accept"]).0, Some(0));
    replace(&project.at("watched.toml"), "READ", "WRITTEN");
    let elsewhere = project.folder.file("kept");
    assert_eq!(project.test(&["--artifacts", elsewhere.to_str().unwrap()]).0, Some(5));
    assert!(elsewhere.join("watched/trace").exists() && !project.at("watched.failed").exists());
    let mut ci = command(&project.folder);
    let output = ci.env("CI", "true").arg("test").arg(project.folder.file("scenarios")).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(!project.at("watched.failed").exists());
}

/// Its consumer ends at once the first time, and listens the second.
#[test]
fn a_scenario_that_succeeds_at_another_try_is_flaky_and_one_that_does_not_has_failed() {
    let flaky = "version = 1\nabout = \"flaky\"\n[machine]\nguest = \"touch\"\n\
                 [[consumers.external]]\nrings = [\"access\"]\ncommand = \"./listener\"\n";
    let project = Project::with(&[("once", flaky.to_owned())]);
    let listener = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mem-event/client/examples/listener.py");
    let script =
        format!("#!/bin/sh\n[ -e was_here ] || {{ touch was_here; exit 1; }}\nexec python3 {}\n", listener.display());
    std::fs::write(project.at("listener"), script).unwrap();
    std::fs::set_permissions(project.at("listener"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let first_time = || std::fs::remove_file(project.at("was_here"));
    project.test(&["--accept"]);
    assert_eq!(project.test(&["--accept"]).0, Some(0));

    first_time().unwrap();
    let (code, said) = project.test(&[]);
    assert!(code.is_some_and(|code| code > 3) && !said.contains("flaky: "), "{said}");

    first_time().unwrap();
    let junit = project.folder.file("junit.xml");
    let (code, said) = project.test(&["--retries", "1", "--junit", junit.to_str().unwrap()]);
    assert!(code == Some(0) && said.contains("(flaky: 1 of 2 tries failed; the first: "), "{said}");
    assert!(said.contains("1 scenarios: 1 success, 1 of them flaky"), "{said}");
    assert!(project.at("once.failed/trace").exists(), "of the try that failed");
    assert!(std::fs::read_to_string(&junit).unwrap().contains("<flakyFailure message="));

    let (_, said) = project.test(&["--retries", "1", "--json"]);
    let line: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!(line["flaky"], false, "the first try was a success: {said}");
}

#[test]
fn what_is_broken_is_one_scenarios_matter_and_fail_fast_begins_no_other() {
    let project = Project::with(&[
        ("a", scenario("[[steps]]\nat = 1\ndo = [{ wach = {} }]\n")),
        ("b", "version = 1\nabout = \"b\"\n[machine]\nguest = \"no_such_guest\"\n".into()),
        ("c", scenario(WATCH)),
    ]);
    let (code, said) = project.test(&["--accept", "--jobs", "1"]);
    assert!(
        said.contains("error     a: ") && said.contains("a.toml:8") && said.contains("did you mean `watch`"),
        "{said}"
    );
    assert!(said.contains("error     b: ") && said.contains("accepted  c"), "{said}");
    assert!(code.is_some_and(|code| code > 3) && said.contains("3 scenarios: 1 success, 2 error"), "{said}");
    let (_, said) = project.test(&["--fail-fast", "--jobs", "1"]);
    assert!(said.contains("1 scenarios: 1 error, 2 not run"), "{said}");
}

#[test]
fn a_run_that_is_over_its_budget_fails_with_what_it_was_over_by() {
    let refused = "[[steps]]\nat = 1\ndo = [{ nominate = { frames = \"0xb8\", refused = \"EBUSY\" } }]\n";
    let expect = |count: u32| format!("expect = {{ refused_nominations = {count}, longest = \"1m\" }}\n");
    let text = |count| {
        scenario(refused)
            .replace("[machine]", &(expect(count) + "[machine]"))
            .replace("[consumers.listener]", "[consumers.listener]\n[consumers.pager]")
    };
    let project = Project::with(&[("within", text(1)), ("over", text(0))]);
    let (code, said) = project.test(&["--accept", "--jobs", "1"]);
    assert!(code == Some(5) && said.contains("accepted  within"), "{said}");
    assert!(said.contains("failure   over: 1 nominations were refused where 0 may be"), "{said}");
}
