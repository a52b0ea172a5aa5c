//! How long each step took.

use std::time::Instant;

pub struct Steps {
    began: Instant,
    last: Instant,
    done: Vec<(f64, String)>,
}

impl Steps {
    pub fn begin() -> Self {
        let began = Instant::now();
        Self { began, last: began, done: Vec::new() }
    }

    /// Told at once too: a run that fails says how far it came.
    pub fn done(&mut self, what: &str) {
        let took = self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
        println!("{:7.1} s  {what}", self.began.elapsed().as_secs_f64());
        self.done.push((took, what.to_owned()));
    }

    pub fn print(&self, silent_boots: u32) {
        println!("\n| seconds | step |\n|---:|---|");
        for (took, what) in &self.done {
            println!("| {took:.1} | {what} |");
        }
        println!("| {:.1} | all of it |", self.began.elapsed().as_secs_f64());
        println!("\nboots of the guest that said nothing, and were tried again: {silent_boots}");
    }
}
