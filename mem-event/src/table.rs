//! Enums that are tables: each row has a number and a name, and nothing else lists the rows again.

// Numbers are `tt`: the derive of bincode takes no literal that went through a `literal`.
/// Makes an enum of rows `Variant = number "name"`: the numbers go over rings and sockets, the names stand in files, JSON and CSV.
macro_rules! table {
    (
        $(#[$meta:meta])*
        pub enum $type:ident { $($(#[$doc:meta])* $variant:ident = $number:tt $name:literal),+ $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode)]
        #[repr(u8)]
        pub enum $type { $($(#[$doc])* $variant = $number),+ }

        impl $type {
            /// All rows of the table, in its order.
            pub const ALL: [$type; [$($number),+].len()] = [$($type::$variant),+];

            /// The row with this number.
            #[inline(always)]
            #[must_use]
            pub const fn from_number(number: u8) -> Option<$type> {
                match number {
                    $($number => Some($type::$variant),)+
                    _ => None,
                }
            }

            /// The row's name in files, JSON and CSV.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($type::$variant => $name),+ }
            }

            /// The row with this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<$type> {
                $type::ALL.into_iter().find(|row| row.name() == name)
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

pub(crate) use table;
