//! What an access line costs the thread that writes it: `cargo bench --bench access`.

use std::hint::black_box;
use std::time::Duration;

/// CPU time of this thread: what others do on the machine does not count.
fn cpu() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

fn main() {
    use chatcorn::board::{Board, Sender};
    use chatcorn::log::{self, Plan, access};
    let (Ok(board), Ok((pipe, reader))) = (Board::create(), chatcorn::sys::fd::packet_pair()) else { return };
    let drain = std::thread::spawn(move || {
        let mut buffer = vec![0u8; 1 << 16];
        while nix::unistd::read(&reader, &mut buffer).is_ok_and(|length| length > 0) {}
    });
    let Ok(guard) = log::start_worker(&Plan::default(), Sender::Slot(0), pipe, board) else { return };
    let record = access::Record {
        request_id: "550e8400-e29b-41d4-a716-446655440000",
        own_id: true,
        client: Some([10, 1, 2, 3].into()),
        method: "POST",
        path: "/api/chat",
        protocol: "HTTP/1.1",
        status: 200,
        bytes_in: 123,
        bytes_out: 4567,
        duration: Duration::from_micros(12_345),
        first_byte: Some(Duration::from_micros(2_345)),
        worker: 2,
        verdict: "admitted",
        user_agent: Some("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0"),
    };
    let count = 100_000u32;
    let run = || {
        let begun = cpu();
        (0..count).for_each(|_| access::emit(black_box(&record)));
        (cpu() - begun).as_nanos() as f64 / f64::from(count)
    };
    let best = (0..10).map(|_| run()).fold(f64::MAX, f64::min);
    println!("row\taccess line, formatted and handed over, best of 10\t{best:.0} ns of its thread\t");
    let begun = cpu();
    for _ in 0..count {
        log::flush();
    }
    println!("row\tnothing to hand over\t{:.1} ns\t", (cpu() - begun).as_nanos() as f64 / f64::from(count));
    drop(guard);
    let _ = drain;
}
