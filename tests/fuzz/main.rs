//! The targets of `fuzz/`, driven by a stable compiler: over the committed corpus, and over mutations of it that are the
//! same in every run.

#![allow(clippy::print_stdout, reason = "what was counted is the result")]

#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

#[test]
fn x() {
    for (name, target) in fuzz::TARGETS {
        for n in 0..300u64 {
            let mut s = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let bytes: Vec<u8> = (0..(n % 200))
                .map(|_| {
                    s ^= s << 13;
                    s ^= s >> 7;
                    s ^= s << 17;
                    s as u8
                })
                .collect();
            target(&bytes);
        }
        println!("{name}");
    }
}
