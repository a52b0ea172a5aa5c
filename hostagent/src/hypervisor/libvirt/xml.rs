//! XML as a small tree: what is written to libvirt, and what is read from it.
//!
//! Nothing is ever formatted into XML text by hand: names of tenants and kernel command lines go through the writer, which
//! escapes them. Characters that XML cannot carry at all are refused, not dropped.

use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};
use quick_xml::{Reader, Writer, XmlVersion};

/// An element with attributes, then children or a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    pub name: String,
    attributes: Vec<(String, String)>,
    children: Vec<Element>,
    text: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{0}` holds a control character, which a domain definition cannot carry")]
    Unwritable(String),
    #[error("libvirt's XML cannot be read: {0}")]
    Unreadable(String),
}

/// An element called `name`.
pub fn el(name: &str) -> Element {
    Element { name: name.into(), ..Element::default() }
}

impl Element {
    pub fn attr(mut self, name: &str, value: impl ToString) -> Self {
        self.attributes.push((name.into(), value.to_string()));
        self
    }

    pub fn child(mut self, child: Element) -> Self {
        self.children.push(child);
        self
    }

    pub fn children(mut self, children: impl IntoIterator<Item = Element>) -> Self {
        self.children.extend(children);
        self
    }

    pub fn text(mut self, text: impl ToString) -> Self {
        self.text = text.to_string();
        self
    }

    /// The value of an attribute.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Children called `name`, whatever their prefix.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.local_name() == name)
    }

    /// The first of them.
    pub fn first<'a>(&'a self, name: &'a str) -> Option<&'a Element> {
        self.children.iter().find(move |child| child.local_name() == name)
    }

    #[cfg(test)]
    pub fn content(&self) -> &str {
        self.text.trim()
    }

    pub fn local_name(&self) -> &str {
        self.name.rsplit(':').next().unwrap_or_default()
    }

    /// As text, indented.
    pub fn write(&self) -> Result<String, Error> {
        let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
        self.write_to(&mut writer)?;
        String::from_utf8(writer.into_inner()).map_err(|e| Error::Unwritable(e.to_string()))
    }

    fn write_to(&self, writer: &mut Writer<Vec<u8>>) -> Result<(), Error> {
        let mut start = BytesStart::new(self.name.as_str());
        for (name, value) in &self.attributes {
            start.push_attribute((name.as_str(), writable(value)?));
        }
        let io = |e: std::io::Error| Error::Unwritable(e.to_string());
        if self.children.is_empty() && self.text.is_empty() {
            return writer.write_event(Event::Empty(start)).map_err(io);
        }
        writer.write_event(Event::Start(start)).map_err(io)?;
        // Around children that were read it is libvirt's indentation.
        let text = if self.children.is_empty() { self.text.as_str() } else { self.text.trim() };
        if !text.is_empty() {
            writer.write_event(Event::Text(BytesText::new(writable(text)?))).map_err(io)?;
        }
        for child in &self.children {
            child.write_to(writer)?;
        }
        writer.write_event(Event::End(BytesEnd::new(self.name.as_str()))).map_err(io)
    }

    /// Reads one document.
    pub fn parse(text: &str) -> Result<Element, Error> {
        let unreadable = |e: &dyn std::fmt::Display| Error::Unreadable(e.to_string());
        let mut reader = Reader::from_str(text);
        let mut open: Vec<Element> = vec![el("")];
        loop {
            let event = reader.read_event().map_err(|e| unreadable(&e))?;
            let innermost = open.last_mut().ok_or_else(|| unreadable(&"more ends than beginnings"))?;
            match event {
                Event::Start(start) => open.push(opened(&start)?),
                Event::Empty(start) => innermost.children.push(opened(&start)?),
                Event::Text(text) => innermost.text.push_str(&text.xml10_content()),
                Event::CData(text) => innermost.text.push_str(&text.xml10_content()),
                Event::GeneralRef(reference) => {
                    let resolved = match reference.resolve_char_ref().map_err(|e| unreadable(&e))? {
                        Some(character) => character.to_string(),
                        None => resolve_predefined_entity(&reference).unwrap_or_default().to_owned(),
                    };
                    innermost.text.push_str(&resolved);
                }
                Event::End(_) => {
                    let closed = open.pop().unwrap_or_default();
                    open.last_mut().ok_or_else(|| unreadable(&"more ends than beginnings"))?.children.push(closed);
                }
                Event::Eof => break,
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
            }
        }
        let document = open.pop().filter(|_| open.is_empty()).ok_or_else(|| unreadable(&"it ends too early"))?;
        document.children.into_iter().next().ok_or_else(|| unreadable(&"it is empty"))
    }
}

fn opened(start: &BytesStart<'_>) -> Result<Element, Error> {
    let mut element = el(start.name().as_ref());
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|e| Error::Unreadable(e.to_string()))?;
        let value =
            attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|e| Error::Unreadable(e.to_string()))?;
        element.attributes.push((attribute.key.as_ref().to_owned(), value.into_owned()));
    }
    Ok(element)
}

/// XML 1.0 has no way to write most control characters, and a line break in an attribute would come back as a space.
fn writable(text: &str) -> Result<&str, Error> {
    if text.chars().any(|c| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}')) {
        return Err(Error::Unwritable(text.escape_debug().to_string()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_libvirt_writes() {
        let text = "<?xml version='1.0'?><!-- c --><domain type='kvm'><name>a &amp; b&#33;</name>\
                    <metadata><c:x xmlns:c=\"u\" n='1'/></metadata></domain>";
        let domain = Element::parse(text).unwrap();
        assert_eq!(domain.get("type"), Some("kvm"));
        assert_eq!(domain.first("name").unwrap().content(), "a & b!");
        assert_eq!(domain.first("metadata").unwrap().first("x").unwrap().get("n"), Some("1"));
        assert!(Element::parse("<a><b></a>").is_err());
        assert!(Element::parse("").is_err());
    }

    #[test]
    fn control_characters_are_refused() {
        assert!(el("title").text("a\u{1}b").write().is_err());
        assert!(el("title").attr("x", "a\nb").write().is_err());
    }

    proptest! {
        #[test]
        fn nothing_escapes_from_its_place(value in "\\PC{1,40}", name in "\\PC{0,40}") {
            let written = el("domain").child(el("title").text(&value)).child(el("x").attr("n", &name)).write().unwrap();
            let read = Element::parse(&written).unwrap();
            prop_assert_eq!(read.children.len(), 2);
            prop_assert_eq!(read.first("title").unwrap().content(), value.trim());
            prop_assert_eq!(read.first("x").unwrap().get("n"), Some(name.as_str()));
        }
    }
}
