//! The xenstore's requests, and who hears of what.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

use xen::store::request::{Newcomer, Store};
use xen::store::wire::{Kind, LONGEST, Message};

const ME: u64 = 1;
const OTHER: u64 = 2;

/// What a request is answered with: the reply's kind and body; and what others hear, as client and body.
fn asks(
    store: &mut Store,
    client: u64,
    transaction: u32,
    kind: Kind,
    body: &[u8],
) -> (Result<String, String>, Vec<(u64, String)>) {
    let request = Message { kind, request: 7, transaction, body: body.to_vec() };
    store.request(client, &request);
    let mut said = store.take().into_iter();
    let (to, reply) = said.next().unwrap();
    assert_eq!((to, reply.request, reply.transaction), (client, 7, transaction));
    let text = |message: &Message| String::from_utf8(message.body.clone()).unwrap();
    let result = if reply.kind == Kind::Error { Err(text(&reply)) } else { Ok(text(&reply)) };
    let heard = said.map(|(client, message)| {
        assert_eq!(message.kind, Kind::WatchEvent);
        (client, text(&message))
    });
    (result, heard.collect())
}

fn ask(store: &mut Store, kind: Kind, body: &str) -> Result<String, String> {
    asks(store, ME, 0, kind, body.as_bytes()).0
}

fn refused(name: &str) -> Result<String, String> {
    Err(format!("{name}\0"))
}

fn done() -> Result<String, String> {
    Ok("OK\0".to_owned())
}

#[test]
fn what_is_written_is_read_and_the_nodes_above_are_made() {
    let mut store = Store::new();
    assert_eq!(ask(&mut store, Kind::Write, "/a/b/c\0some words"), done());
    assert_eq!(ask(&mut store, Kind::Read, "/a/b/c\0"), Ok("some words".into()));
    assert_eq!(ask(&mut store, Kind::Read, "/a/b\0"), Ok(String::new()));
    assert_eq!(ask(&mut store, Kind::Write, "/a/b-1\0"), done());
    assert_eq!(ask(&mut store, Kind::Mkdir, "/a/x\0"), done());
    assert_eq!(ask(&mut store, Kind::Directory, "/a\0"), Ok("b\0b-1\0x\0".into()));
    assert_eq!(ask(&mut store, Kind::Directory, "/\0"), Ok("a\0local\0tool\0vm\0".into()));
    assert_eq!(ask(&mut store, Kind::Rm, "/a/b\0"), done());
    assert_eq!(ask(&mut store, Kind::Read, "/a/b/c\0"), refused("ENOENT"));
    assert_eq!(ask(&mut store, Kind::Directory, "/a\0"), Ok("b-1\0x\0".into()));
    assert_eq!(ask(&mut store, Kind::Rm, "/a/gone\0"), done());
    assert_eq!(ask(&mut store, Kind::Rm, "/nowhere/gone\0"), refused("ENOENT"));
    assert_eq!(ask(&mut store, Kind::Rm, "/\0"), refused("EINVAL"));
    // A name without a beginning begins at home.
    assert_eq!(ask(&mut store, Kind::Read, "name\0"), Ok("Domain-0".into()));
}

#[test]
fn what_is_no_name_and_no_request_is_refused() {
    let mut store = Store::new();
    let long = format!("/{}\0", "a".repeat(3100));
    for name in ["\0", "/a/\0", "//\0", "/a//b\0", "/a b\0", &long, "/a", ""] {
        assert_eq!(ask(&mut store, Kind::Read, name), refused("EINVAL"), "{name}");
    }
    for (kind, body) in [
        (Kind::Watch, "/a\0"),
        (Kind::Watch, "@other\0t\0"),
        (Kind::GetDomainPath, "x\0"),
        (Kind::TransactionEnd, "T\0more\0"),
    ] {
        assert_eq!(ask(&mut store, kind, body), refused("EINVAL"), "{kind:?} {body}");
    }
    assert_eq!(ask(&mut store, Kind::Other(99), "\0"), refused("ENOSYS"));
    assert_eq!(ask(&mut store, Kind::TransactionEnd, "T\0"), refused("ENOENT"));
    let request = Message { kind: Kind::Read, request: 1, transaction: 5, body: b"/\0".to_vec() };
    store.request(ME, &request);
    assert_eq!(store.take()[0].1.body, b"ENOENT\0", "no transaction has this number");
}

#[test]
fn who_watches_hears_at_once_and_of_each_change_below() {
    let mut store = Store::new();
    assert_eq!(asks(&mut store, OTHER, 0, Kind::Watch, b"/a\0word\0"), (done(), vec![(OTHER, "/a\0word\0".into())]));
    assert_eq!(asks(&mut store, OTHER, 0, Kind::Watch, b"/a\0word\0").0, refused("EEXIST"));
    let heard = |path: &str| vec![(OTHER, format!("{path}\0word\0"))];
    assert_eq!(asks(&mut store, ME, 0, Kind::Write, b"/a/b/c\x001").1, heard("/a/b/c"));
    assert_eq!(asks(&mut store, ME, 0, Kind::Write, b"/ab\x001").1, []);
    assert_eq!(asks(&mut store, ME, 0, Kind::Read, b"/a/b/c\0").1, []);
    assert_eq!(asks(&mut store, ME, 0, Kind::Mkdir, b"/a/b\0").1, [], "it is there");
    // With a node go those below it, of which those hear who watch them.
    let _ = asks(&mut store, ME, 0, Kind::Watch, b"/a/b/c\0mine\0");
    let both = [(OTHER, "/a/b\0word\0".to_owned()), (ME, "/a/b/c\0mine\0".to_owned())];
    assert_eq!(asks(&mut store, ME, 0, Kind::Rm, b"/a/b\0").1, both);
    assert_eq!(asks(&mut store, OTHER, 0, Kind::Unwatch, b"/a\0word\0").0, done());
    assert_eq!(asks(&mut store, OTHER, 0, Kind::Unwatch, b"/a\0word\0").0, refused("ENOENT"));
    assert_eq!(asks(&mut store, ME, 0, Kind::Write, b"/a/b\x001").1, []);
    // By a name that begins at home such names are heard.
    let _ = asks(&mut store, OTHER, 0, Kind::Watch, b"data\0home\0");
    assert_eq!(
        asks(&mut store, ME, 0, Kind::Write, b"/local/domain/0/data/x\x001").1,
        [(OTHER, "data/x\0home\0".into())]
    );
    store.part(OTHER);
    assert_eq!(asks(&mut store, ME, 0, Kind::Write, b"/local/domain/0/data/x\x002").1, []);
}

#[test]
fn a_transaction_is_seen_whole_or_not_at_all() {
    let mut store = Store::new();
    ask(&mut store, Kind::Write, "/a\x001").unwrap();
    ask(&mut store, Kind::Watch, "/a\0w\0").unwrap();
    let begin = |store: &mut Store| -> u32 {
        ask(store, Kind::TransactionStart, "\0").unwrap().trim_end_matches('\0').parse().unwrap()
    };
    let number = begin(&mut store);
    assert_eq!(asks(&mut store, ME, number, Kind::Write, b"/a\x002"), (done(), vec![]));
    assert_eq!(asks(&mut store, ME, number, Kind::Read, b"/a\0").0, Ok("2".into()));
    assert_eq!(ask(&mut store, Kind::Read, "/a\0"), Ok("1".into()));
    assert_eq!(asks(&mut store, OTHER, number, Kind::Read, b"/a\0").0, refused("ENOENT"), "it is another's");
    assert_eq!(asks(&mut store, ME, number, Kind::TransactionEnd, b"T\0"), (done(), vec![(ME, "/a\0w\0".into())]));
    assert_eq!(ask(&mut store, Kind::Read, "/a\0"), Ok("2".into()));
    // What it looked at has changed meanwhile.
    let number = begin(&mut store);
    asks(&mut store, ME, number, Kind::Read, b"/a\0").0.unwrap();
    asks(&mut store, ME, number, Kind::Write, b"/b\x001").0.unwrap();
    ask(&mut store, Kind::Write, "/a\x003").unwrap();
    assert_eq!(asks(&mut store, ME, number, Kind::TransactionEnd, b"T\0").0, refused("EAGAIN"));
    assert_eq!(ask(&mut store, Kind::Read, "/b\0"), refused("ENOENT"));
    let number = begin(&mut store);
    asks(&mut store, ME, number, Kind::Rm, b"/a\0").0.unwrap();
    assert_eq!(asks(&mut store, ME, number, Kind::TransactionEnd, b"F\0").0, done());
    assert_eq!(ask(&mut store, Kind::Read, "/a\0"), Ok("3".into()));
}

#[test]
fn domains_come_and_go_and_those_hear_who_watch_for_it() {
    let mut store = Store::new();
    ask(&mut store, Kind::Watch, "@introduceDomain\0in\0").unwrap();
    ask(&mut store, Kind::Watch, "@releaseDomain\0out\0").unwrap();
    let heard =
        |store: &mut Store| -> Vec<Vec<u8>> { store.take().into_iter().map(|(_, message)| message.body).collect() };
    assert_eq!(ask(&mut store, Kind::IsDomainIntroduced, "3\0"), Ok("F\0".into()));
    store.introduce(&Newcomer { number: 3, socket: "/s".into(), name: "web".into() }, 65536);
    assert_eq!(heard(&mut store), [b"@introduceDomain\0in\0".to_vec()]);
    assert_eq!(ask(&mut store, Kind::IsDomainIntroduced, "3\0"), Ok("T\0".into()));
    assert_eq!(ask(&mut store, Kind::Read, "/local/domain/3/name\0"), Ok("web".into()));
    let vm = ask(&mut store, Kind::Read, "/local/domain/3/vm\0").unwrap();
    assert_eq!(ask(&mut store, Kind::Read, &format!("{vm}/uuid\0")), Ok(vm.trim_start_matches("/vm/").to_owned()));
    assert_eq!(ask(&mut store, Kind::GetDomainPath, "3\0"), Ok("/local/domain/3\0".into()));
    assert_eq!(ask(&mut store, Kind::Directory, "/local/domain\0"), Ok("0\x003\0".into()));
    store.release(3);
    store.release(3);
    assert_eq!(heard(&mut store), [b"@releaseDomain\0out\0".to_vec()]);
    assert_eq!(ask(&mut store, Kind::IsDomainIntroduced, "3\0"), Ok("F\0".into()));
}

#[test]
fn many_names_come_in_parts() {
    let mut store = Store::new();
    let names: Vec<String> = (0..1000).map(|number| format!("node-{number:04}")).collect();
    for name in &names {
        ask(&mut store, Kind::Mkdir, &format!("/many/{name}\0")).unwrap();
    }
    assert_eq!(ask(&mut store, Kind::Directory, "/many\0"), refused("E2BIG"));
    let mut all = String::new();
    loop {
        let part = ask(&mut store, Kind::DirectoryPart, &format!("/many\0{}\0", all.len())).unwrap();
        let (_, part) = part.split_once('\0').unwrap();
        match part.strip_suffix("\0\0") {
            Some(last) => {
                all += last;
                break;
            }
            None => all += part,
        }
    }
    assert_eq!(all.split('\0').collect::<Vec<_>>(), names);
}

#[test]
fn messages_are_cut_where_they_end_and_none_is_longer_than_may_be() {
    let one = Message { kind: Kind::Write, request: 1, transaction: 2, body: b"/a\0value".to_vec() };
    let two = Message { kind: Kind::Read, request: 3, transaction: 0, body: b"/a\0".to_vec() };
    let bytes = [one.bytes(), two.bytes()].concat();
    let (first, length) = Message::first(&bytes).unwrap().unwrap();
    assert_eq!(first, one);
    assert_eq!(Message::first(&bytes[length..]), Ok(Some((two, bytes.len() - length))));
    for short in 0..length {
        assert_eq!(Message::first(&bytes[..short]), Ok(None));
    }
    let whole = Message { kind: Kind::Read, request: 0, transaction: 0, body: vec![b'a'; LONGEST] };
    assert!(Message::first(&whole.bytes()).unwrap().is_some());
    let long = Message { body: vec![b'a'; LONGEST + 1], ..whole };
    assert!(Message::first(&long.bytes()).is_err());
}
