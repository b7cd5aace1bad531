//! How an input is made from others.

use crate::random::Random;

/// Numbers at which code that counts or compares goes wrong.
const TELLING: [u64; 9] = [0, 1, 0x7f, 0x80, 0xff, 0x7fff_ffff, 0xffff_ffff, 1 << 63, u64::MAX];

/// Makes inputs.
#[derive(Debug)]
pub struct Mutator {
    random: Random,
    words: Vec<Vec<u8>>,
    longest: usize,
}

impl Mutator {
    /// One that puts in these words and makes no input longer than so many bytes.
    #[must_use]
    pub fn new(random: Random, words: Vec<Vec<u8>>, longest: usize) -> Mutator {
        Mutator { random, words, longest }
    }

    /// An input of the corpus with a few changes.
    pub fn next(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = corpus.get(self.random.below(corpus.len())).cloned().unwrap_or_default();
        for _ in 0..1 + self.random.below(6) {
            self.change(corpus, &mut bytes);
        }
        bytes.truncate(self.longest);
        bytes
    }

    fn change(&mut self, corpus: &[Vec<u8>], bytes: &mut Vec<u8>) {
        let random = &mut self.random;
        let at = random.below(bytes.len() + 1);
        match random.below(if self.words.is_empty() { 7 } else { 9 }) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.byte(),
            2 => {
                let value = TELLING[random.below(TELLING.len())].to_le_bytes();
                let width = (1 << random.below(4)).min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&value[..width]);
            }
            3 => bytes.truncate(at),
            4 => {
                let Some(other) = corpus.get(random.below(corpus.len())) else { return };
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
            5 => {
                let run: Vec<u8> = (0..random.below(12)).map(|_| random.byte()).collect();
                bytes.splice(at..at, run);
            }
            7 | 8 => {
                // Put in, or over what is there.
                let word = &self.words[random.below(self.words.len())];
                let end = if random.below(2) == 0 { at } else { (at + word.len()).min(bytes.len()) };
                bytes.splice(at..end, word.iter().copied());
            }
            _ => {
                let end = (at + random.below(8)).min(bytes.len());
                bytes.drain(at..end);
            }
        }
    }
}
