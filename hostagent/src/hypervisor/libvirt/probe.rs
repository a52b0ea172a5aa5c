//! KVM or emulation? Asked of [`croft_preflight::kvm`], unless the operator decided.

use croft_preflight::kvm;

use super::config::DomainTypeChoice;
use super::domain::DomainType;
use super::reasons::DOMAIN_TYPE_UNAVAILABLE;
use crate::hypervisor::Error;

/// What was decided, and why, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub domain_type: DomainType,
    pub reason: String,
}

/// Decides once, at start. Blocks for up to two seconds.
pub fn decide(choice: DomainTypeChoice) -> Result<Decision, Error> {
    let decided = |domain_type, reason: &str| Ok(Decision { domain_type, reason: reason.to_owned() });
    match choice {
        DomainTypeChoice::Qemu => decided(DomainType::Qemu, "asked for by --domain-type qemu"),
        DomainTypeChoice::Kvm if !std::path::Path::new("/dev/kvm").exists() => Err(Error::Refused {
            reason: DOMAIN_TYPE_UNAVAILABLE,
            message:
                "--domain-type kvm: there is no /dev/kvm; load kvm_intel or kvm_amd, or enable virtualisation in the \
                      firmware"
                    .into(),
        }),
        DomainTypeChoice::Kvm => decided(DomainType::Kvm, "asked for by --domain-type kvm"),
        DomainTypeChoice::Auto => {
            let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            Ok(chosen(kvm::weigh(&flags, kvm::run_vcpu)))
        }
    }
}

fn chosen(weighed: Result<&'static str, String>) -> Decision {
    match weighed {
        Ok(flag) => {
            Decision { domain_type: DomainType::Kvm, reason: format!("KVM: the CPU has {flag} and a vCPU ran") }
        }
        Err(why) => Decision { domain_type: DomainType::Qemu, reason: format!("emulation: {why}") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_may_decide() {
        assert_eq!(decide(DomainTypeChoice::Qemu).unwrap().domain_type, DomainType::Qemu);
    }

    #[test]
    fn otherwise_it_is_kvm_where_that_works() {
        let kvm = chosen(Ok("svm"));
        assert!(kvm.domain_type == DomainType::Kvm && kvm.reason.contains("svm"), "{}", kvm.reason);
        let emulated = chosen(Err("no vCPU ran: EPERM".into()));
        assert!(emulated.domain_type == DomainType::Qemu && emulated.reason.contains("EPERM"), "{}", emulated.reason);
    }
}
