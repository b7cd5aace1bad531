//! Times by chance.

use harness::simulate::law::Law;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

const DRAWS: u32 = 200_000;

/// Mean and standard deviation of many draws.
fn moments(law: &Law) -> (f64, f64) {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(5);
    let draws: Vec<f64> = (0..DRAWS).map(|_| law.draw(&mut random) as f64).collect();
    let mean = draws.iter().sum::<f64>() / f64::from(DRAWS);
    let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / f64::from(DRAWS);
    (mean, variance.sqrt())
}

#[test]
fn a_law_has_the_mean_and_the_deviation_that_it_is_written_with() {
    let due = [
        ("2us", 2_000.0, 0.0),
        ("constant:1.5ms", 1_500_000.0, 0.0),
        ("exp:2µs", 2_000.0, 2_000.0),
        ("uniform:1us..3us", 2_000.0, 2_000.0 / 12.0_f64.sqrt()),
        ("lognormal:2us,0.5", 2_000.0, 1_000.0),
    ];
    for (text, mean, deviation) in due {
        let law: Law = text.parse().unwrap();
        let found = moments(&law);
        assert!((found.0 - mean).abs() <= mean * 0.01, "{text}: mean {}", found.0);
        assert!((found.1 - deviation).abs() <= deviation * 0.02, "{text}: deviation {}", found.1);
        let twice = moments(&law.with_mean(4_000));
        assert!((twice.0 - 4_000.0).abs() <= 40.0, "{text} with another mean: {}", twice.0);
    }
}

#[test]
fn an_empirical_law_gives_what_was_seen_and_nothing_else() {
    let law = Law::of(vec![3, 5, 100], "what was seen").unwrap();
    let mut random = Xoshiro256PlusPlus::seed_from_u64(5);
    let mut drawn: Vec<u64> = (0..1_000).map(|_| law.draw(&mut random)).collect();
    drawn.sort_unstable();
    drawn.dedup();
    assert_eq!(drawn, [3, 5, 100]);
}

#[test]
fn times_that_are_none_are_refused_with_what_may_be_written() {
    let texts = [
        "",
        "2",
        "2 hours",
        "exp",
        "exp:",
        "exp:x",
        "uniform:3us",
        "uniform:3us..1us",
        "lognormal:2us",
        "lognormal:2us,-1",
        "pareto:2us",
        "-2us",
        "2000s000",
    ];
    for text in texts {
        let refusal = text.parse::<Law>().expect_err(text);
        assert!(refusal.remedy.starts_with("write a time (2us), exp:MEAN"), "{text}: {refusal}");
    }
    let refusal = "file:/nowhere/at/all".parse::<Law>().unwrap_err();
    assert!(refusal.what.starts_with("cannot read the times in /nowhere/at/all"), "{refusal}");
}
