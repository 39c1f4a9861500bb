//! Writes the page of a run that was made up, for the browser test: `sample_page OUT.html [SENSORS SECONDS EVERY_MS]`.

use std::io::Write as _;

#[path = "../tests/view/sample.rs"]
mod sample;

fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    let out = args.next().expect("the first argument is the file to write");
    let numbers: Vec<u64> = args.map(|arg| arg.parse().expect("the others are numbers")).collect();
    let size = match numbers[..] {
        [sensors, seconds, every_ms] => {
            sample::Size { sensors: u32::try_from(sensors).expect("few sensors"), seconds, every_ms }
        }
        _ => sample::SMALL,
    };
    let (scenario, report) = sample::sample(size, false);
    let page = newtmq_sim::html::page(&scenario, &report);
    #[expect(clippy::disallowed_types, reason = "not part of a simulation")]
    std::fs::File::create(out)?.write_all(page.as_bytes())
}
