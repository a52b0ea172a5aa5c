//! Recipes: how a guest becomes a node, as data. Four are built in; operators bring their own in a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::validate::is_slug;

const TEXT_MAX: u64 = 32 * 1024;
const NAME_MAX: usize = 40;

const BUILT_IN: [(&str, &str); 4] = [
    ("kubelet", include_str!("recipes/kubelet.sh")),
    ("kubeadm", include_str!("recipes/kubeadm.sh")),
    ("k3s", include_str!("recipes/k3s.sh")),
    ("rke2", include_str!("recipes/rke2.sh")),
];

/// A POSIX shell script that runs in the guest. docs/kubernetes.md tells what it is called with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    name: String,
    text: String,
}

impl Recipe {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// All that the plane knows, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipes(BTreeMap<String, Recipe>);

/// Why a folder of recipes is not taken.
#[derive(Debug, thiserror::Error)]
pub enum BadRecipe {
    #[error("{}: cannot be read", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    #[error("{}: a recipe is a file named NAME.sh, NAME of 1 to {NAME_MAX} of [a-z0-9-]", .0.display())]
    Name(PathBuf),
    #[error("{}: {why}", path.display())]
    Text { path: PathBuf, why: String },
}

impl Recipes {
    #[must_use]
    pub fn built_in() -> Self {
        let recipe =
            |(name, text): (&str, &str)| (name.to_owned(), Recipe { name: name.to_owned(), text: text.to_owned() });
        Self(BUILT_IN.into_iter().map(recipe).collect())
    }

    /// The built-in ones, and each `NAME.sh` of the folder; one of the same name takes the place of the built-in one. Names that
    /// begin with a dot are left alone: editors and mounted ConfigMaps make such. Blocks; for the start of the plane.
    pub fn read(folder: &Path) -> Result<Self, BadRecipe> {
        let Self(mut recipes) = Self::built_in();
        let unreadable = |why| BadRecipe::Read(folder.to_owned(), why);
        for entry in std::fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            if file.starts_with('.') {
                continue;
            }
            let name = file.strip_suffix(".sh").filter(|name| is_slug(name, NAME_MAX));
            let name = name.ok_or_else(|| BadRecipe::Name(path.clone()))?;
            let recipe = Recipe { name: name.to_owned(), text: text(&path)? };
            recipes.insert(name.to_owned(), recipe);
        }
        Ok(Self(recipes))
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Recipe> {
        self.0.get(name)
    }

    /// In their order, for messages that say what there is.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl Default for Recipes {
    fn default() -> Self {
        Self::built_in()
    }
}

fn text(path: &Path) -> Result<String, BadRecipe> {
    let unreadable = |why| BadRecipe::Read(path.to_owned(), why);
    let refuse = |why: String| Err(BadRecipe::Text { path: path.to_owned(), why });
    // A link is followed: that is how a ConfigMap shows its files.
    let about = std::fs::metadata(path).map_err(unreadable)?;
    if !about.is_file() {
        return refuse("not a regular file".to_owned());
    }
    if about.len() > TEXT_MAX {
        return refuse(format!("{} bytes; a recipe has at most {TEXT_MAX}", about.len()));
    }
    let Ok(text) = String::from_utf8(std::fs::read(path).map_err(unreadable)?) else {
        return refuse("not a text in UTF-8".to_owned());
    };
    if !text.starts_with("#!/bin/sh\n") {
        return refuse(
            "its first line must be `#!/bin/sh`, with no carriage return: any guest's shell runs it".to_owned(),
        );
    }
    if text.contains(['\0', '\r']) {
        return refuse("holds a NUL byte or a carriage return".to_owned());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str, text: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), text).unwrap();
        folder
    }

    #[test]
    fn an_operators_recipe_is_added_and_may_replace_a_built_in_one() {
        let folder = folder("flatcar.sh", b"#!/bin/sh\ntrue\n");
        std::fs::write(folder.path().join("k3s.sh"), "#!/bin/sh\n# ours\n").unwrap();
        std::fs::write(folder.path().join(".flatcar.sh.swp"), [0xff]).unwrap();
        let recipes = Recipes::read(folder.path()).unwrap();
        assert_eq!(recipes.names().collect::<Vec<_>>(), ["flatcar", "k3s", "kubeadm", "kubelet", "rke2"]);
        assert_eq!(recipes.get("k3s").unwrap().text(), "#!/bin/sh\n# ours\n");
        assert_eq!(recipes.get("kubelet"), Recipes::built_in().get("kubelet"));
        assert_eq!(recipes.get("nobody"), None);
    }

    #[test]
    fn what_is_no_recipe_is_refused_by_its_file() {
        let long = [b"#!/bin/sh\n".as_slice(), &[b'#'; 32 * 1024]].concat();
        for (name, text, why) in [
            ("README.md", b"#!/bin/sh\n".as_slice(), "NAME.sh"),
            ("My Recipe.sh", b"#!/bin/sh\n", "[a-z0-9-]"),
            ("bash.sh", b"#!/bin/bash\n", "#!/bin/sh"),
            ("dos.sh", b"#!/bin/sh\ntrue\r\n", "carriage return"),
            ("long.sh", &long, "at most 32768"),
            ("latin.sh", b"#!/bin/sh\n# \xe9\n", "UTF-8"),
        ] {
            let folder = folder(name, text);
            let error = Recipes::read(folder.path()).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(why), "{error}");
        }
        let missing = Recipes::read(Path::new("/no/such/folder")).unwrap_err().to_string();
        assert!(missing.contains("/no/such/folder"), "{missing}");
    }
}
