//! Whose a connection is: the program that made it, or the consumer to which it was handed over.

use mem_event::trace::Remark;
use std::collections::BTreeMap;

/// The names of connections.
#[derive(Clone, Debug, Default)]
pub struct Connections(BTreeMap<u32, String>);

impl Connections {
    /// What stands between the steps.
    pub fn heard(&mut self, remark: &Remark) {
        if let Remark::Came { connection, program: name, .. } | Remark::HandedOver { connection, consumer: name } =
            remark
        {
            self.0.insert(*connection, name.clone());
        }
    }

    /// The name of a connection with its number, as far as it has one.
    #[must_use]
    pub fn name(&self, connection: u32) -> String {
        match self.0.get(&connection).filter(|name| !name.is_empty()) {
            Some(name) => format!("{name} (connection {connection})"),
            None => format!("connection {connection}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Connections;
    use mem_event::trace::Remark;

    #[test]
    fn a_connection_has_the_name_of_the_consumer_to_which_it_was_handed_over() {
        let (mut connections, connection) = (Connections::default(), 3);
        assert_eq!(connections.name(connection), "connection 3");
        connections.heard(&Remark::Came { connection, process: 1, user: 0, program: "mem-event".into() });
        assert_eq!(connections.name(connection), "mem-event (connection 3)");
        connections.heard(&Remark::HandedOver { connection, consumer: "./pager".into() });
        assert_eq!(connections.name(connection), "./pager (connection 3)");
    }
}
