//! A libvirt document as a small tree, and its way onto paper.

use quick_xml::events::BytesText;
use quick_xml::writer::Writer;

/// One element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    name: &'static str,
    attributes: Vec<(String, String)>,
    text: String,
    children: Vec<Element>,
}

pub(super) fn element(name: &'static str) -> Element {
    Element { name, attributes: Vec::new(), text: String::new(), children: Vec::new() }
}

impl Element {
    pub(super) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.attributes.push((name.into(), value.to_string()));
        self
    }

    pub(super) fn maybe(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    pub(super) fn text(mut self, text: impl ToString) -> Self {
        self.text = text.to_string();
        self
    }

    pub(super) fn child(mut self, child: Element) -> Self {
        self.children.push(child);
        self
    }

    pub(super) fn children(mut self, children: impl IntoIterator<Item = Element>) -> Self {
        self.children.extend(children);
        self
    }

    /// Puts `name` in the place of each `open`, with what becomes of its value.
    pub(super) fn settle<E>(
        &mut self,
        open: &str,
        name: &str,
        value: &impl Fn(&str) -> Result<String, E>,
    ) -> Result<(), E> {
        for attribute in self.attributes.iter_mut().filter(|(known, _)| known == open) {
            *attribute = (name.to_owned(), value(&attribute.1)?);
        }
        self.children.iter_mut().try_for_each(|child| child.settle(open, name, value))
    }

    /// The same with another value of an attribute, wherever an element has this one.
    pub(super) fn replaced(&self, name: &str, attribute: &str, old: &str, new: &str) -> Self {
        let mut made = self.clone();
        if made.name == name {
            let found = |(known, value): &&mut (String, String)| known == attribute && value == old;
            made.attributes.iter_mut().filter(found).for_each(|(_, value)| new.clone_into(value));
        }
        made.children = made.children.iter().map(|child| child.replaced(name, attribute, old, new)).collect();
        made
    }

    /// The whole document.
    pub(super) fn to_xml(&self) -> String {
        let mut writer = Writer::new(Vec::new());
        self.write(&mut writer).expect("writing to memory does not fail");
        String::from_utf8(writer.into_inner()).expect("all parts are text")
    }

    fn write(&self, writer: &mut Writer<Vec<u8>>) -> std::io::Result<()> {
        let attributes = self.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let out = writer.create_element(self.name).with_attributes(attributes);
        if !self.text.is_empty() {
            out.write_text_content(BytesText::new(&self.text))?;
        } else if self.children.is_empty() {
            out.write_empty()?;
        } else {
            out.write_inner_content(|writer| self.children.iter().try_for_each(|child| child.write(writer)))?;
        }
        Ok(())
    }
}
