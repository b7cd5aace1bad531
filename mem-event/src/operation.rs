//! Control operations as rows of a table: their numbers, names and arguments.

/// Makes `Control` of rows `number "name" Variant { arguments in their order on the socket }`, where `argument` is imported.
macro_rules! operations {
    (
        $(#[$meta:meta])*
        pub enum Control {
            $($(#[$doc:meta])* $number:literal $name:literal $variant:ident {
                $($(#[$about:meta])* $field:ident: $type:ty),+ $(,)?
            })+
        }
    ) => {
        $(#[$meta])*
        pub enum Control {
            $($(#[$doc])* $variant { $($(#[$about])* $field: $type),+ }),+
        }

        impl Control {
            /// The numbers of all operations on the control socket, in the table's order.
            pub const NUMBERS: [u16; [$($number),+].len()] = [$($number),+];

            /// The names of all operations, in the table's order.
            pub const NAMES: [&'static str; [$($number),+].len()] = [$($name),+];

            /// The operation's number on the control socket.
            #[must_use]
            pub const fn number(&self) -> u16 {
                match self { $(Control::$variant { .. } => $number),+ }
            }

            /// The operation's name in JSON and CSV.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $(Control::$variant { .. } => $name),+ }
            }

            /// Its arguments as numbers.
            pub(crate) fn arguments(&self) -> [u64; 5] {
                match *self { $(Control::$variant { $($field),+ } => padded(&[$($field.number()),+])),+ }
            }

            /// The operation with this number and these arguments.
            ///
            /// # Errors
            /// A sentence, where there is none, or an argument is none of its kind.
            pub(crate) fn from_arguments(number: u16, arguments: &[u64; 5]) -> Result<Control, String> {
                let mut arguments = arguments.iter().copied().enumerate();
                match number {
                    $($number => Ok(Control::$variant { $($field: next(&mut arguments)?),+ }),)+
                    other => Err(format!("no operation {other}")),
                }
            }
        }

        impl std::fmt::Display for Control {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())?;
                match self {
                    $(Control::$variant { $($field),+ } => {
                        $(write!(f, " {} {}", stringify!($field), $field)?;)+
                    })+
                }
                Ok(())
            }
        }
    };
}

pub(crate) use operations;
