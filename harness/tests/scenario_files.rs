//! A scenario's file: the schema is made from the types, and what is wrong is shown where it is.

use harness::scenario::{Scenario, file};
use std::path::Path;

#[test]
fn the_committed_schema_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenario.schema.json");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    if committed != file::schema() {
        let next = path.with_extension("json.new");
        std::fs::write(&next, file::schema()).unwrap();
        panic!("the format has changed: look at {}, then rename it to {}", next.display(), path.display());
    }
}

const GOOD: &str = "version = 1\nabout = \"x\"\n[machine]\nguest = \"example\"\n";

/// What is said about a file that is `GOOD` and then this.
fn said(more: &str) -> String {
    let text = if more.starts_with("version") || more.is_empty() { more.to_owned() } else { format!("{GOOD}{more}") };
    let refusal = Scenario::parse(Path::new("a/b.toml"), text).expect_err(more);
    assert_eq!(refusal.exit_code(), 2, "{refusal}");
    let shown = refusal.shown.clone().unwrap_or_default();
    assert!(shown.contains("a/b.toml:") && shown.contains(&refusal.remedy), "{shown}");
    refusal.to_string()
}

/// What is in the schema's place for an act: names of acts, by the definitions that it refers to.
fn acts_of(definition: &serde_json::Value, schema: &serde_json::Value) -> Vec<String> {
    let mut names = Vec::new();
    for choice in ["anyOf", "oneOf"].iter().filter_map(|key| definition[key].as_array()).flatten() {
        match choice["$ref"].as_str() {
            Some(path) => names.extend(acts_of(schema.pointer(&path[1..]).unwrap(), schema)),
            None => names
                .extend(choice["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned())),
        }
    }
    names
}

#[test]
fn what_a_rule_cannot_do_is_no_act_there_in_the_schema_and_in_the_reader() {
    let schema: serde_json::Value = serde_json::from_str(&file::schema()).unwrap();
    let of = |definition: &str| acts_of(&schema["$defs"][definition], &schema);
    let taken_by = |owner: &str| {
        let path = schema["$defs"][owner]["properties"]["do"]["items"]["$ref"].as_str().unwrap();
        acts_of(schema.pointer(&path[1..]).unwrap(), &schema)
    };
    let (to_memory, to_consumers) = (of("MemoryAct"), of("ConsumerAct"));
    assert_eq!(taken_by("Rule"), to_memory);
    assert_eq!(taken_by("Step"), [to_memory, to_consumers.clone()].concat());
    assert!(to_consumers.contains(&"kill".to_owned()), "{to_consumers:?}");
    for name in to_consumers {
        let told = said(&format!("[[consumers.listener.rules]]\ndo = [{{ {name} = {{}} }}]\n"));
        assert!(told.contains(&format!("no name `{name}` here")), "{told}");
    }
}

#[test]
fn every_act_stands_in_the_table_of_the_documents() {
    let table = include_str!("../../docs/scenarios.md");
    let table = table.split("| act | |").nth(1).unwrap().split("\n\n").next().unwrap();
    // The first column.
    let told: Vec<&str> = table.lines().filter_map(|row| row.split('|').nth(1)).collect();
    let schema: serde_json::Value = serde_json::from_str(&file::schema()).unwrap();
    for name in acts_of(&schema["$defs"]["Act"], &schema) {
        assert!(told.iter().any(|row| row.contains(&format!("`{name}`"))), "docs/scenarios.md lacks `{name}`");
    }
}

#[test]
fn every_act_of_the_schema_is_known_to_the_reader() {
    let schema: serde_json::Value = serde_json::from_str(&file::schema()).unwrap();
    for name in acts_of(&schema["$defs"]["Act"], &schema) {
        let text = format!("{GOOD}[[steps]]\nat = 1\ndo = [{{ {name} = {{ }} }}]\n");
        let told = Scenario::parse(Path::new("a/b.toml"), text).err().map(|refusal| refusal.to_string());
        assert!(told.as_ref().is_none_or(|told| !told.contains("no name")), "{name}: {told:?}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_column_and_what_is_allowed() {
    let cases = [
        ("", "a/b.toml:1:1: the key `version` is missing; begin with: version = 1"),
        (
            "version = 2\n",
            "a/b.toml:1:11: a version of the scenario format that this program does not read; it reads version = 1",
        ),
        ("version = 1\n[machine]\nguest = \"x\"\n", "a/b.toml:1:1: the key `about` is missing; add `about`"),
        (
            "cpus = 2\n",
            "a/b.toml:5:1: no key `cpus` here; did you mean `cpu` or `vcpus` or `guest`? allowed: guest, from, initrd, append, firmware, vcpus, icount, thread, memory, cpu, disk, symbols, args",
        ),
        ("icount = 11\n", "a/b.toml:5:10: no time of an instruction; write 0 (1 ns) to 10 (1024 ns)"),
        ("vcpus = 0\n", "a/b.toml:5:9: 0 vCPUs; write 1 to 255"),
        ("vcpus = \"two\"\n", "a/b.toml:5:9: invalid type: string \"two\"; expected i64"),
        ("memory = \"12Q\"\n", "a/b.toml:5:10: size \"12Q\" is no number with a unit; write 512M, 2G or 65536K"),
        (
            "[rings.acces]\n",
            "a/b.toml:5:8: no key `acces` here; did you mean `access`? allowed: access, paging, sharing",
        ),
        (
            "[rings.access]\nlayout = \"flags8\"\n",
            "a/b.toml:6:10: no name `flags8` here; did you mean `flags16` or `flags32`? allowed: flags16, flags32, vm_event7",
        ),
        ("[[steps]]\nat = 1\ndo = [{ evit = 1 }]\n", "a/b.toml:7:9: no name `evit` here; did you mean `evict`"),
        (
            "[[steps]]\nat = 1\ndo = [{ set-access = { frames = \"A\", access = \"q\" } }]\n",
            "a/b.toml:7:47: no name `q` here; allowed: n, r, w, x, rw, rx, wx, rwx, rx2rw, n2rwx",
        ),
        ("[[steps]]\nat = 1\ndo = [{ set-access = { frames = \"A\" } }]\n", "the key `access` is missing"),
        ("[[steps]]\nat = 1\ndo = [{ watch = { frames = \"A\", stop = \"q\" } }]\n", "a/b.toml:7:40: no access 'q'"),
        ("[[steps]]\nat = 1\ndo = [{ write = { at = \"A\", value = -1 } }]\n", "a number from 0 to 0xffffffffffffffff"),
        ("[[steps]]\nat = -1\n", "a/b.toml:6:6: "),
        ("[[steps]]\nat = true\n", "a checkpoint's number, or a symbol or address of the guest's program"),
        ("[[consumers.listener.rules]]\nthen = \"maybe\"\n", "a/b.toml:6:8: no name `maybe` here; "),
        (
            "[[steps]]\nat = 1\ndo = [{ watch = { frames = \"A\", stops = \"r\" } }]\n",
            "a/b.toml:7:33: no key `stops` here; did you mean `stop`? allowed: frames, stop",
        ),
        (
            "[[consumers.listener.rules]]\ndo = [{ kill = { consumer = \"pager\" } }]\n",
            "a/b.toml:6:9: no name `kill` here; allowed: watch, set-access, ",
        ),
        ("x = [\n", "a/b.toml:5:"),
        (
            "[[consumers.listener.rules]]\nthen = \"may\\n\\u001b[1mbe\"\n",
            r"a/b.toml:6:8: no name `may\n\u{1b}[1mbe` here; ",
        ),
    ];
    let others = cases.iter().filter(|(more, due)| !said(more).contains(due));
    let told: Vec<String> =
        others.map(|(more, due)| format!("{more}\n  is told {}\n  not     {due}", said(more))).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}
