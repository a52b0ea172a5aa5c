//! The same comparison by two readers that share no line of code with us: ctypes, and NVIDIA's own binding.

use std::io::{self, Write};
use std::process::{Command, Output};

use croft_gpu_sim::boards::{Board, H100_SXM_80GB, H200_SXM_141GB};
use serde_json::Value;

use crate::captured::{H100, H200, differences, guest};
use crate::library_directory;

/// Runs a script against a host; `None`, with a word on stderr, where there is nothing to run it with.
fn python(test: &str, board: &Board, captured: &str, needs: &str, script: &str) -> Option<Output> {
    let interpreter = std::env::var_os("CROFT_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let probe = Command::new(&interpreter).args(["-c", &format!("import {needs}")]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        // Not by `eprintln`, which the harness swallows.
        let (name, sorry) = (interpreter.display(), "is not here (CROFT_TEST_PYTHON names another)");
        let skipped = format!("SKIPPED {test}: {name} with module {needs} {sorry}\n");
        io::stderr().write_all(skipped.as_bytes()).unwrap();
        return None;
    }
    let (root, library) = (guest(board, captured), library_directory());
    let mut command = Command::new(interpreter);
    command.args(["-c", script]).env("LD_LIBRARY_PATH", library.path()).env("CROFT_SIM_ROOT", root.path());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(output)
}

#[test]
fn python_reads_what_it_read_from_real_boards() {
    for (board, captured) in [(&H100_SXM_80GB, H100), (&H200_SXM_141GB, H200)] {
        let script = include_str!("../capture.py");
        let Some(output) = python("python_reads_what_it_read_from_real_boards", board, captured, "ctypes", script)
        else {
            return;
        };
        let told = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(differences(captured, &told), Vec::<String>::new(), "{}", board.name);
    }
}

/// nvidia-ml-py checks the structures, their versions and the error codes of every call that it makes.
#[test]
fn nvidias_own_binding_reads_the_same() {
    for (board, captured) in [(&H100_SXM_80GB, H100), (&H200_SXM_141GB, H200)] {
        let script = include_str!("../nvidia_ml_py.py");
        let Some(output) = python("nvidias_own_binding_reads_the_same", board, captured, "pynvml", script) else {
            return;
        };
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        let asked = part_of(&serde_json::from_str(captured).unwrap(), &told);
        assert!(asked.as_object().unwrap().len() > 25, "{told}");
        assert_eq!(differences(&asked.to_string(), &told), Vec::<String>::new(), "{}", board.name);
    }
}

/// As much of `whole` as `like` has keys for.
fn part_of(whole: &Value, like: &Value) -> Value {
    match (whole, like) {
        (Value::Object(whole), Value::Object(like)) => {
            let keys = like.iter().filter_map(|(key, like)| Some((key.clone(), part_of(whole.get(key)?, like))));
            Value::Object(keys.collect())
        }
        (Value::Array(whole), Value::Array(like)) if whole.len() == like.len() => {
            whole.iter().zip(like).map(|(whole, like)| part_of(whole, like)).collect()
        }
        _ => whole.clone(),
    }
}
