//! The host's own console: the screen that the kernel writes to, and the controllers that its keyboards hang on.
//!
//! A keyboard itself stays a device like another: many security keys say that they are keyboards, and whoever puts a real one
//! into a pool means it.

use super::Use;
use crate::error::{FsError, IfThere as _};
use crate::hostfs::HostFs;
use crate::pci::PciAddress;
use crate::seat::Seat;

pub(super) fn uses(fs: &HostFs) -> Result<Vec<Use>, FsError> {
    let mut found = Vec::new();
    if let Some(screen) = screen(fs)? {
        found.push((screen.to_string(), "/dev/tty0 (the host's console is on this screen)".to_owned()));
    }
    found.extend(keyboards(fs)?);
    Ok(found)
}

/// Where the kernel's messages go, if that is a virtual terminal; with `console=ttyS0` alone the screens are free.
fn screen(fs: &HostFs) -> Result<Option<PciAddress>, FsError> {
    let consoles = fs.attribute("/sys/class/tty/console/active").if_there()?.unwrap_or_default();
    let is_terminal =
        |name: &str| name.strip_prefix("tty").is_some_and(|n| n.bytes().all(|byte| byte.is_ascii_digit()));
    if !consoles.split_whitespace().any(is_terminal) {
        return Ok(None);
    }
    let mut framebuffer = false;
    for terminal in fs.entries("/sys/class/vtconsole").if_there()?.unwrap_or_default() {
        let read = |file: &str| fs.attribute(&format!("/sys/class/vtconsole/{terminal}/{file}")).if_there();
        let shown = read("bind")?.as_deref() == Some("1");
        let name = read("name")?.unwrap_or_default();
        framebuffer |= shown && name.contains("frame buffer device");
        if shown && name.contains("VGA+") {
            return primary(fs);
        }
    }
    if !framebuffer {
        return Ok(None);
    }
    // One that the firmware set up is no PCI function's, and on the card that the firmware chose.
    let first = fs.link("/sys/class/graphics/fb0").if_there()?;
    match first.as_deref().and_then(Seat::of) {
        Some(seat) => Ok(Some(seat.function)),
        None => primary(fs),
    }
}

/// The card that the firmware showed its own messages on.
fn primary(fs: &HostFs) -> Result<Option<PciAddress>, FsError> {
    for name in fs.entries("/sys/bus/pci/devices").if_there()?.unwrap_or_default() {
        let is_primary = fs.attribute(&format!("/sys/bus/pci/devices/{name}/boot_vga")).if_there()?;
        if is_primary.as_deref() == Some("1") {
            return Ok(name.parse().ok());
        }
    }
    Ok(None)
}

/// Controllers of input devices whose keys go to the console.
fn keyboards(fs: &HostFs) -> Result<Vec<Use>, FsError> {
    let table = fs.read("/proc/bus/input/devices").if_there()?.unwrap_or_default();
    let keyboard = |block: &str| {
        let field = |tag: &str| block.lines().find_map(|line| line.strip_prefix(tag));
        let is_keyboard = field("H: Handlers=")?.split_whitespace().any(|handler| handler == "kbd");
        let seat = Seat::of(std::path::Path::new(field("S: Sysfs=")?)).filter(|_| is_keyboard)?;
        let name = field("N: Name=").unwrap_or_default().trim_matches('"');
        let name: String = name.chars().filter(|c| !c.is_control()).collect();
        let port = seat.port?;
        Some((seat.function.to_string(), format!("USB port {port} (keyboard of the host: {name})")))
    };
    Ok(table.split("\n\n").filter_map(keyboard).collect())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tree;

    fn uses(tree: &Tree) -> Vec<(String, String)> {
        super::uses(&tree.fs()).unwrap()
    }

    #[test]
    fn the_screen_of_the_console_is_in_use() {
        let tree = Tree::new();
        for (address, primary) in [("0000:03:00.0", "0"), ("0000:04:00.0", "1")] {
            tree.write(&format!("sys/devices/pci0000:00/{address}/boot_vga"), primary);
            tree.link(&format!("sys/bus/pci/devices/{address}"), &format!("../../../devices/pci0000:00/{address}"));
        }
        tree.write("sys/class/tty/console/active", "tty0 ttyS0\n");
        tree.write("sys/class/vtconsole/vtcon0/name", "(S) dummy device\n");
        tree.write("sys/class/vtconsole/vtcon0/bind", "0\n");
        assert_eq!(uses(&tree), [], "nothing is shown anywhere");
        tree.write("sys/class/vtconsole/vtcon1/name", "(M) frame buffer device\n");
        tree.write("sys/class/vtconsole/vtcon1/bind", "1\n");
        tree.link("sys/class/graphics/fb0", "../../devices/pci0000:00/0000:03:00.0/graphics/fb0");
        let screen =
            |address: &str| [(address.to_owned(), "/dev/tty0 (the host's console is on this screen)".to_owned())];
        assert_eq!(uses(&tree), screen("0000:03:00.0"));
        std::fs::remove_file(tree.path("sys/class/graphics/fb0")).unwrap();
        tree.link("sys/class/graphics/fb0", "../../devices/platform/simple-framebuffer.0/graphics/fb0");
        assert_eq!(uses(&tree), screen("0000:04:00.0"), "the firmware's own");
        tree.write("sys/class/vtconsole/vtcon1/name", "(S) VGA+\n");
        assert_eq!(uses(&tree), screen("0000:04:00.0"));
        tree.write("sys/class/tty/console/active", "ttyS0\n");
        assert_eq!(uses(&tree), [], "the console is a serial line");
    }

    #[test]
    fn a_controller_that_drives_a_keyboard_is_in_use() {
        let tree = Tree::new();
        let device = |name: &str, port: &str, handlers: &str| {
            format!(
                "I: Bus=0003 Vendor=046d\nN: Name=\"{name}\"\nS: Sysfs=/devices/pci0000:00/0000:00:14.0/usb1/{port}/{port}:1.0/0003:046D:C31C.0001/input/input5\n\
                 H: Handlers={handlers}\nB: EV=120013\n\n"
            )
        };
        tree.write("proc/bus/input/devices", &device("Logitech Mouse", "1-4", "mouse0 event3"));
        assert_eq!(uses(&tree), []);
        tree.write(
            "proc/bus/input/devices",
            &(device("M", "1-4", "mouse0") + &device("Keys", "1-3", "sysrq kbd event4")),
        );
        let words = "USB port 1-3 (keyboard of the host: Keys)".to_owned();
        assert_eq!(uses(&tree), [("0000:00:14.0".to_owned(), words)]);
    }
}
