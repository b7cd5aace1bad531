//! What is against the order of the house.

use crate::floors::House;
use crate::names::Imports;
use crate::source::File;
use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;
use std::collections::BTreeSet;

/// Files that import each other in a circle, a line a circle.
pub fn circles(files: &[File], imports: &Imports) -> Vec<String> {
    let graph: DiGraphMap<usize, ()> = imports.iter().copied().collect();
    let circles = tarjan_scc(&graph).into_iter().filter(|files| files.len() > 1);
    circles
        .map(|mut circle| {
            circle.sort_unstable();
            let names: Vec<String> = circle.iter().map(|at| files[*at].module.join("::")).collect();
            let arrows = imports.iter().filter(|(from, to)| circle.contains(from) && circle.contains(to));
            let arrows: Vec<String> = arrows
                .map(|(from, to)| format!("    {} -> {}", files[*from].path.display(), files[*to].path.display()))
                .collect();
            format!("a circle of {}: {}\n{}", circle.len(), names.join(", "), arrows.join("\n"))
        })
        .collect()
}

/// Imports from a room that is not on a lower floor, rooms that the document does not list, and rooms that it lists and that are not there.
pub fn against(house: &House, files: &[File], imports: &Imports) -> Vec<String> {
    let rooms: BTreeSet<&str> = files.iter().map(File::room).filter(|room| *room != "lib").collect();
    let unlisted = rooms.iter().filter(|room| house.floor(room).is_none());
    let mut faults: Vec<String> = unlisted.map(|room| format!("`{room}` stands on no floor")).collect();
    let listed = house.floors.iter().flatten();
    faults.extend(listed.filter(|room| !rooms.contains(room.as_str())).map(|room| format!("`{room}` is not there")));
    for (from, to) in imports {
        let (from, to) = (&files[*from], &files[*to]);
        // The library's root declares all rooms.
        if from.room() == to.room() || from.room() == "lib" {
            continue;
        }
        if to.room() == "lib" || house.floor(to.room()) >= house.floor(from.room()) {
            faults.push(format!(
                "{} imports {}, which is not on a lower floor",
                from.path.display(),
                to.path.display()
            ));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn files(names: &[&str]) -> Vec<File> {
        let file = |name: &&str| File {
            path: PathBuf::from(name),
            module: name.split('/').map(str::to_owned).collect(),
            items: Vec::new(),
            lines: 0,
        };
        names.iter().map(file).collect()
    }

    fn house(floors: &[&[&str]]) -> House {
        let floors = floors.iter().map(|rooms| rooms.iter().map(|room| (*room).to_owned()).collect()).collect();
        House { path: String::new(), floors }
    }

    #[test]
    fn files_that_import_each_other_are_a_circle_also_within_a_room() {
        let files = files(&["a/x", "a/y", "b"]);
        let found = circles(&files, &Imports::from([(0, 1), (1, 0), (2, 0)]));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("a circle of 2: a::x, a::y"), "{}", found[0]);
    }

    #[test]
    fn an_import_goes_down() {
        let files = files(&["a/x", "b"]);
        let house = house(&[&["a"], &["b"]]);
        assert!(against(&house, &files, &Imports::from([(1, 0)])).is_empty());
        assert_eq!(against(&house, &files, &Imports::from([(0, 1)])).len(), 1);
    }

    #[test]
    fn rooms_of_one_floor_do_not_import_each_other() {
        assert_eq!(against(&house(&[&["a", "b"]]), &files(&["a", "b"]), &Imports::from([(0, 1)])).len(), 1);
    }

    #[test]
    fn the_list_and_the_rooms_agree_both_ways() {
        assert_eq!(against(&house(&[&["a", "gone"]]), &files(&["a", "new"]), &Imports::new()).len(), 2);
    }
}
