//! USB devices of the kind that people give to virtual machines.

/// One product that is plugged into a USB port.
#[derive(Debug)]
pub struct UsbBoard {
    pub name: &'static str,
    pub vendor: u16,
    pub product: u16,
    pub manufacturer_name: &'static str,
    pub product_name: &'static str,
    /// Does each piece have a serial number of its own? If not, two of them are told apart by their ports alone.
    pub serial: Serial,
    /// `bDeviceClass`; 0: each interface says its own.
    pub class: u8,
    /// `bInterfaceClass`, and the driver that takes it.
    pub interface: (u8, Option<&'static str>),
    /// In Mbit/s, as `speed` has it.
    pub speed: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serial {
    Has,
    None,
}

/// A security key without a serial number.
pub static SECURITY_KEY: UsbBoard = UsbBoard {
    name: "security_key",
    vendor: 0x1050,
    product: 0x0407,
    manufacturer_name: "Yubico",
    product_name: "YubiKey OTP+FIDO+CCID",
    serial: Serial::None,
    class: 0x00,
    interface: (0x03, Some("usbhid")),
    speed: "12",
};

/// A licence dongle with a serial number.
pub static LICENCE_DONGLE: UsbBoard = UsbBoard {
    name: "licence_dongle",
    vendor: 0x0529,
    product: 0x0620,
    manufacturer_name: "SafeNet",
    product_name: "Sentinel HL",
    serial: Serial::Has,
    class: 0xff,
    interface: (0xff, None),
    speed: "12",
};

/// QEMU's memory stick, with a serial number.
pub static MEMORY_STICK: UsbBoard = UsbBoard {
    name: "memory_stick",
    vendor: 0x46f4,
    product: 0x0001,
    manufacturer_name: "QEMU",
    product_name: "QEMU USB HARDDRIVE",
    serial: Serial::Has,
    class: 0x00,
    interface: (0x08, Some("usb-storage")),
    speed: "5000",
};

pub static ALL: &[&UsbBoard] = &[&SECURITY_KEY, &LICENCE_DONGLE, &MEMORY_STICK];

#[must_use]
pub fn by_name(name: &str) -> Option<&'static UsbBoard> {
    ALL.iter().copied().find(|device| device.name == name)
}
