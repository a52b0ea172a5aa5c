//! Can guests run guests of their own?

use super::super::{Check, Found};
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "nested",
    looks_at: "the parameter nested of kvm_intel or kvm_amd",
    why: "tenants who run virtual machines or Kata inside their instances need it",
    worst: Level::Info,
    role: None,
    look,
};

fn look(facts: &Facts) -> Found {
    for module in ["kvm_intel", "kvm_amd"] {
        let Some(nested) = facts.attribute(&format!("/sys/module/{module}/parameters/nested"))? else { continue };
        return Ok(vec![match nested.as_str() {
            "1" | "Y" => Finding::ok("host", format!("on ({module})")),
            _ => {
                let fix = format!("if tenants need it: options {module} nested=1 in /etc/modprobe.d, and reboot");
                Finding::info("host", format!("off ({module})"), fix)
            }
        }]);
    }
    Ok(Vec::new())
}
