//! Measures, and holds the figures against the goals.
use harness::{corpus, run::Job};
fn main() -> anyhow::Result<()> {
    for name in std::env::args().skip(1) {
        let scenario = corpus::find(&name).unwrap_or_else(corpus::linux);
        let job = Job::new(scenario, None)?;
        let mut machine = job.machine_without_plugin()?;
        machine.plugin = None;
        let (took, console) = harness::run::run_machine(&machine, std::time::Duration::from_secs(100))?;
        println!("{name} {took:?}\n{console}");
    }
    Ok(())
}
