//! The kinds of PCI functions that a simulated machine has: those of boards, and the chassis' own.

use serde::{Deserialize, Serialize};

use crate::boards::{self, BarSize, Board, PciShape, Space, SriovShape};

/// Which entry of which table describes a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shape {
    RootComplex,
    RootPort,
    /// The chassis' USB controller.
    Xhci,
    /// The function of that number of a board.
    Board {
        name: String,
        function: u8,
    },
    /// A virtual function of a board's first function.
    Virtual {
        name: String,
    },
}

impl Shape {
    pub fn of_board(name: &str) -> Vec<Shape> {
        let companions = boards::by_name(name).map_or(0, |board| board.companions.len());
        (0..=companions).map(|n| Shape::Board { name: name.to_owned(), function: n as u8 }).collect()
    }

    /// Its board, where it is a function of one.
    pub fn board(&self) -> Option<&'static Board> {
        match self {
            Shape::Board { name, .. } | Shape::Virtual { name } => boards::by_name(name),
            Shape::RootComplex | Shape::RootPort | Shape::Xhci => None,
        }
    }

    /// `None` for a virtual function: it is told by [`Shape::sriov`] of its physical one.
    fn pci(&self) -> Option<&'static PciShape> {
        match self {
            Shape::RootComplex => Some(&ROOT_COMPLEX),
            Shape::RootPort => Some(&ROOT_PORT),
            Shape::Xhci => Some(&XHCI),
            Shape::Board { function: 0, .. } => self.board().map(|board| &board.pci),
            Shape::Board { function, .. } => self.board()?.companions.get(usize::from(*function) - 1),
            Shape::Virtual { .. } => None,
        }
    }

    /// Of the board's first function, for it and for its virtual functions.
    pub fn sriov(&self) -> Option<&'static SriovShape> {
        match self {
            Shape::Board { function: 0, .. } | Shape::Virtual { .. } => self.board()?.pci.sriov.as_ref(),
            _ => None,
        }
    }

    /// What sysfs says of it. A name that no board has describes nothing.
    pub fn facts(&self) -> Option<Facts> {
        if let Shape::Virtual { .. } = self {
            let (physical, sriov) = (&self.board()?.pci, self.sriov()?);
            return Some(Facts {
                device: sriov.device,
                bars: &[],
                driver: sriov.driver,
                reset_methods: sriov.reset_methods,
                // The link is the physical function's.
                link: None,
                ..Facts::of(physical)
            });
        }
        self.pci().map(Facts::of)
    }
}

/// What a function's configuration space and its driver's table say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub vendor: u16,
    pub device: u16,
    pub subsystem: (u16, u16),
    pub class: u32,
    pub revision: u8,
    pub bars: &'static [BarSize],
    /// The driver that takes it by its id.
    pub driver: Option<&'static str>,
    pub reset_methods: &'static [&'static str],
    pub link: Option<(&'static str, u8)>,
}

impl Facts {
    fn of(shape: &'static PciShape) -> Facts {
        let &PciShape { vendor, device, subsystem, class, revision, bars, driver, reset_methods, .. } = shape;
        let link = (shape.link_width > 0).then_some((shape.link_speed, shape.link_width));
        Facts { vendor, device, subsystem, class, revision, bars, driver, reset_methods, link }
    }
}

/// Of Intel's Sapphire Rapids: a "system peripheral", where older machines have a host bridge.
static ROOT_COMPLEX: PciShape = PciShape {
    vendor: 0x8086,
    device: 0x09a2,
    subsystem: (0x8086, 0x0000),
    class: 0x08_8000,
    revision: 0x20,
    bars: &[],
    driver: None,
    reset_methods: &[],
    link_speed: "",
    link_width: 0,
    sriov: None,
};

static ROOT_PORT: PciShape = PciShape {
    vendor: 0x8086,
    device: 0x352a,
    subsystem: (0x8086, 0x0000),
    class: 0x06_0400,
    revision: 0x04,
    bars: &[],
    driver: Some("pcieport"),
    reset_methods: &["pm"],
    link_speed: "32.0 GT/s PCIe",
    link_width: 16,
    sriov: None,
};

static XHCI: PciShape = PciShape {
    vendor: 0x8086,
    device: 0x1bcd,
    subsystem: (0x8086, 0x7270),
    class: 0x0c_0330,
    revision: 0x11,
    bars: &[BarSize { index: 0, bytes: 64 << 10, space: Space::Memory64 }],
    driver: Some("xhci_hcd"),
    // A function of the chipset: nothing resets it but its own driver.
    reset_methods: &[],
    link_speed: "",
    link_width: 0,
    sriov: None,
};
