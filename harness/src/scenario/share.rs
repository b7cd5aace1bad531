//! Which frames an act shares with which.

use super::range::Frames;
use super::text::Place;
use crate::guest::symbols::Symbols;
use crate::refusal::Refusal;
use mem_event::Gfn;

/// The frames of an act, pair by pair: whose memory stays, who shows it too.
///
/// # Errors
/// A range that is none, or as many of one as do not go with the others.
pub fn pairs<'a>(
    frames: &'a Place,
    with: &'a Place,
    symbols: &Symbols,
) -> Result<Vec<(Gfn, Gfn)>, (Refusal, &'a Place)> {
    let run = |place: &'a Place| place.frames(symbols).map_err(|refusal| (refusal, place));
    let (sources, clients): (Frames, Frames) = (run(frames)?, run(with)?);
    if sources.count != 1 && sources.count != clients.count {
        let problem = format!("{} frames share with {}", sources.count, clients.count);
        return Err((Refusal::usage(problem, "name one frame for all, or as many as `with` has"), with));
    }
    Ok(sources.iter().cycle().zip(clients.iter()).collect())
}
