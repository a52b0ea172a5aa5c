//! Just enough Markdown to check documentation: links, the anchors of headings, and the commands in code blocks.

/// A link and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) line: usize,
    pub(crate) target: String,
}

/// A command line from a fenced block that is marked as shell, or not marked at all: the reader of the commands knows
/// which of those are commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// What one document holds.
#[derive(Debug, Default)]
pub(crate) struct Document {
    pub(crate) links: Vec<Link>,
    pub(crate) anchors: Vec<String>,
    pub(crate) commands: Vec<Command>,
}

/// Reads a document.
pub(crate) fn read(text: &str) -> Document {
    let mut document = Document::default();
    let mut fence: Option<Fence> = None;
    let mut command: Option<Command> = None;
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if let Some(info) = line.trim_start().strip_prefix("```") {
            fence = match fence {
                Some(_) => None,
                None if ["", "sh", "bash", "console"].contains(&info.trim()) => Some(Fence::Shell),
                None => Some(Fence::Other),
            };
            document.commands.extend(command.take());
            continue;
        }
        match fence {
            Some(Fence::Shell) => shell_line(number, line, &mut command, &mut document.commands),
            Some(Fence::Other) => {}
            None => {
                if let Some(heading) = heading(line) {
                    document.anchors.push(anchor(heading, &document.anchors));
                }
                links(number, line, &mut document.links);
            }
        }
    }
    document
}

enum Fence {
    Shell,
    Other,
}

/// Joins lines that end in a backslash.
fn shell_line(number: usize, line: &str, open: &mut Option<Command>, done: &mut Vec<Command>) {
    let text = line.trim();
    let (text, goes_on) = match text.strip_suffix('\\') {
        Some(text) => (text.trim_end(), true),
        None => (text, false),
    };
    let mut command = match open.take() {
        Some(command) => Command { line: command.line, text: format!("{} {text}", command.text) },
        None => Command { line: number, text: text.strip_prefix("$ ").unwrap_or(text).to_owned() },
    };
    if goes_on {
        *open = Some(command);
    } else if !command.text.is_empty() && !command.text.starts_with('#') {
        command.text = command.text.trim().to_owned();
        done.push(command);
    }
}

fn heading(line: &str) -> Option<&str> {
    let text = line.trim_start_matches('#');
    let level = line.len() - text.len();
    (1..=6).contains(&level).then(|| text.strip_prefix(' ')).flatten().map(str::trim)
}

/// The anchor that forges make of a heading: lower case, punctuation gone, blanks to hyphens, `-1` for a second one.
fn anchor(heading: &str, before: &[String]) -> String {
    let plain: String = heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect();
    let taken = |name: &String| before.contains(name);
    if !taken(&plain) {
        return plain;
    }
    (1..).map(|n| format!("{plain}-{n}")).find(|name| !taken(name)).unwrap_or(plain)
}

/// `[text](target)` outside inline code.
fn links(number: usize, line: &str, found: &mut Vec<Link>) {
    let outside: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
    for (at, _) in outside.match_indices("](") {
        let rest = &outside[at + 2..];
        if let Some(end) = rest.find(')') {
            let target = rest[..end].split(" \"").next().unwrap_or_default().trim();
            found.push(Link { line: number, target: target.trim_matches(['<', '>']).to_owned() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Croft: a plane\nSee [the map](docs/map.md#the-picture) and `[not](this)`.\n\n## Twice\n## Twice\n\
        ```sh\n# a comment\n$ cargo xtask test\ncroft instance create a \\\n    --image b\n```\n```rust\n[no](link)\n```\n";

    #[test]
    fn links_are_found_and_code_is_not() {
        let document = read(TEXT);
        assert_eq!(document.links, [Link { line: 2, target: "docs/map.md#the-picture".to_owned() }]);
    }

    #[test]
    fn headings_make_the_anchors_that_forges_make() {
        assert_eq!(read(TEXT).anchors, ["croft-a-plane", "twice", "twice-1"]);
    }

    #[test]
    fn continued_commands_are_one() {
        let commands: Vec<String> = read(TEXT).commands.into_iter().map(|c| c.text).collect();
        assert_eq!(commands, ["cargo xtask test", "croft instance create a --image b"]);
    }
}
