//! Messages (`xen/include/public/io/xs_wire.h`): a header of four words, and a body.

/// Bytes of a header.
pub const HEADER: usize = 16;
/// The longest body.
pub const LONGEST: usize = 4096;

macro_rules! kinds {
    ($($name:ident = $number:literal;)+) => {
        /// What a message is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the names are those of enum xsd_sockmsg_type")]
        pub enum Kind {
            $($name,)+
            /// None that is known.
            Other(u32),
        }

        impl Kind {
            /// By its number.
            #[must_use]
            pub fn of(number: u32) -> Kind {
                match number {
                    $($number => Kind::$name,)+
                    other => Kind::Other(other),
                }
            }

            /// Its number.
            #[must_use]
            pub fn number(self) -> u32 {
                match self {
                    $(Kind::$name => $number,)+
                    Kind::Other(number) => number,
                }
            }
        }
    };
}

kinds! {
    Control = 0;
    Directory = 1;
    Read = 2;
    GetPerms = 3;
    Watch = 4;
    Unwatch = 5;
    TransactionStart = 6;
    TransactionEnd = 7;
    Introduce = 8;
    Release = 9;
    GetDomainPath = 10;
    Write = 11;
    Mkdir = 12;
    Rm = 13;
    SetPerms = 14;
    WatchEvent = 15;
    Error = 16;
    IsDomainIntroduced = 17;
    Resume = 18;
    SetTarget = 19;
    ResetWatches = 21;
    DirectoryPart = 22;
}

/// A message, either way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// The asker's number of it, which the reply repeats.
    pub request: u32,
    /// The transaction that it belongs to; 0 for none.
    pub transaction: u32,
    /// The rest.
    pub body: Vec<u8>,
}

/// A body that is longer than any may be: the connection ends.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

impl Message {
    /// The first message of these bytes, and how many it has; `None` where it has not come whole yet.
    ///
    /// # Errors
    /// It is longer than any may be.
    pub fn first(bytes: &[u8]) -> Result<Option<(Message, usize)>, TooLong> {
        let Some((header, rest)) = bytes.split_at_checked(HEADER) else { return Ok(None) };
        let word = |index: usize| {
            header[4 * index..4 * index + 4].iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
        };
        let length = word(3) as usize;
        if length > LONGEST {
            return Err(TooLong);
        }
        let whole = rest.get(..length).map(|body| {
            let message =
                Message { kind: Kind::of(word(0)), request: word(1), transaction: word(2), body: body.to_vec() };
            (message, HEADER + length)
        });
        Ok(whole)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.body.len()).unwrap_or(u32::MAX);
        let header = [self.kind.number(), self.request, self.transaction, length];
        header.iter().flat_map(|word| word.to_le_bytes()).chain(self.body.iter().copied()).collect()
    }
}

/// An error by its name, as it goes to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub &'static str);
