//! The shape of `src`: which module may use which, and how large each may be.
//!
//! The sources are read as text. Comments, the inside of strings, and items that only tests or the concurrency models
//! have, do not count. Every path that starts with `crate`, `super`, `self` or the name of a child module is followed through re-exports to the file that
//! defines the name, so that an import through the crate root is seen as well.
//!
//! `cargo test --test layering -- --nocapture` shows the lines of code of each module.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

/// The modules, low to high. A module uses those of the lines above it; modules of one line do not know each other.
const LAYERS: &[&[&str]] = &[
    &["offset", "sync"],
    &["error", "clock"],
    &["format"],
    &["message"],
    &["disk"],
    &["progress"],
    &["drive"],
    &["mapped_file"],
    &["view"],
    &["side"],
    &["commit_log", "consume_queue", "index_file"],
    &["flush"],
    &["dispatch"],
    &["checkpointer"],
    &["retention"],
    &["recovery"],
    &["options"],
    &["store"],
];

/// Lines of code of `src` altogether.
/// The aim is 8,000; this is where the code stands, so that it only gets smaller. `tests/README.md` says what costs.
const MAX_LINES: usize = 10_285;
/// Lines of code that nine of ten files keep to.
const MAX_FILE_LINES: usize = 350;
/// Lines of code of a function, its first and last line included.
const MAX_FUNCTION_LINES: usize = 70;
/// Files that may contain `unsafe`.
const MAX_UNSAFE_FILES: usize = 3;

#[test]
fn a_module_uses_lower_layers_only() {
    assert_none("imports that do not go down", &Sources::read().wrong_imports(LAYERS));
}

#[test]
fn no_files_of_a_module_import_each_other_in_a_circle() {
    assert_none("circles", &Sources::read().circles());
}

#[test]
fn the_table_names_what_there_is() {
    let sources = Sources::read();
    let found: BTreeSet<&str> = sources.files.iter().filter_map(File::top).collect();
    let named: Vec<&str> = LAYERS.concat();
    assert_eq!(named.len(), named.iter().collect::<BTreeSet<_>>().len(), "a module stands in the table twice");
    assert_eq!(found, named.into_iter().collect(), "modules found, and modules named by the table");
}

#[test]
fn the_crate_root_defines_nothing() {
    assert_none("definitions in lib.rs", &Sources::read().definitions_in_root());
}

#[test]
fn the_source_is_small() {
    let sources = Sources::read();
    let mut modules: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for file in &sources.files {
        let (files, lines) = modules.entry(file.top().unwrap_or("lib")).or_default();
        *files += 1;
        *lines += file.lines();
    }
    for module in ["lib"].iter().chain(LAYERS.iter().copied().flatten()) {
        let (files, lines) = modules.get(module).copied().unwrap_or_default();
        println!("{module:>14} {lines:>6} lines in {files} files");
    }
    let lines: usize = modules.values().map(|(_, lines)| lines).sum();
    println!("{:>14} {lines:>6} lines in {} files", "all", sources.files.len());
    assert!(lines <= MAX_LINES, "src has {lines} lines of code, of {MAX_LINES} allowed");
}

#[test]
fn nine_of_ten_files_are_short() {
    assert_none("too many long files", &Sources::read().too_many_long_files());
}

#[test]
fn functions_are_short() {
    assert_none("long functions", &Sources::read().long_functions());
}

#[test]
fn unsafe_code_is_in_few_files() {
    assert_none("too many files with unsafe code", &Sources::read().too_many_unsafe_files());
}

fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

/// The files of a crate.
struct Sources {
    files: Vec<File>,
    by_module: HashMap<Vec<String>, usize>,
}

/// One file, without comments, strings and tests.
struct File {
    /// Its path below `src`.
    name: String,
    /// Its module's path; empty for the crate root.
    module: Vec<String>,
    code: String,
    tokens: Vec<Token>,
    imports: Vec<Import>,
}

/// A path that occurs in a file.
#[derive(Debug, Clone)]
struct Import {
    path: Vec<String>,
    line: usize,
    /// The name that a `use` gives it.
    name: Option<String>,
    /// `pub use`, of any visibility.
    is_reexport: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

impl Sources {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut texts = Vec::new();
        read_folder(&root, "", &mut texts);
        Self::new(texts)
    }

    fn new(texts: impl IntoIterator<Item = (String, String)>) -> Self {
        let texts: Vec<(String, String)> = texts.into_iter().collect();
        let tests: BTreeSet<Vec<String>> = texts.iter().flat_map(|(name, text)| test_modules(name, text)).collect();
        let mut files: Vec<File> = texts.into_iter().map(|(name, text)| File::new(name, &text)).collect();
        files.retain(|file| !tests.contains(&file.module));
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let by_module: HashMap<_, _> =
            files.iter().enumerate().map(|(index, file)| (file.module.clone(), index)).collect();
        for file in &mut files {
            let mut children = BTreeSet::new();
            for module in by_module.keys() {
                if let Some((last, parent)) = module.split_last()
                    && *parent == file.module
                {
                    children.insert(last.as_str());
                }
            }
            file.imports = imports(&file.tokens, &children);
        }
        Self { files, by_module }
    }

    /// The file that defines what a path names, seen from a file.
    fn target(&self, from: usize, path: &[String], hops: usize) -> usize {
        assert!(hops < 20, "{}: {} is re-exported in a circle", self.files[from].name, path.join("::"));
        let mut module = self.files[from].module.clone();
        for (at, segment) in path.iter().enumerate() {
            match segment.as_str() {
                "crate" => module.clear(),
                "self" => {}
                "super" => drop(module.pop()),
                name => {
                    let here = self.by_module[&module];
                    module.push(name.to_owned());
                    if self.by_module.contains_key(&module) {
                        continue;
                    }
                    let named = |import: &&Import| import.name.as_deref() == Some(name);
                    return match self.files[here].imports.iter().find(named) {
                        // What is behind the name, a variant or a method, does not matter.
                        Some(import) if at > 0 => self.target(here, &import.path, hops + 1),
                        _ => here,
                    };
                }
            }
        }
        self.by_module[&module]
    }

    /// Each import that is more than a re-export of a module's own parts: from, to, line.
    fn edges(&self) -> Vec<(usize, usize, usize)> {
        let mut edges = Vec::new();
        for (from, file) in self.files.iter().enumerate().filter(|(_, file)| file.top().is_some()) {
            for import in &file.imports {
                let to = self.target(from, &import.path, 0);
                if to != from && !(import.is_reexport && self.files[to].top() == file.top()) {
                    edges.push((from, to, import.line));
                }
            }
        }
        edges
    }

    fn wrong_imports(&self, layers: &[&[&str]]) -> Vec<String> {
        let layer = |module: Option<&str>| layers.iter().position(|layer| module.is_some_and(|it| layer.contains(&it)));
        let mut wrong = BTreeSet::new();
        for (from, to, line) in self.edges() {
            let (from, to) = (&self.files[from], &self.files[to]);
            let goes_down = match (layer(from.top()), layer(to.top())) {
                (Some(above), Some(below)) => above > below,
                _ => false,
            };
            if from.top() != to.top() && !goes_down {
                wrong.insert(format!("src/{}:{line} uses {}", from.name, to.name));
            }
        }
        let globs = self.files.iter().flat_map(|file| file.imports.iter().map(move |import| (file, import)));
        for (file, import) in globs.filter(|(_, import)| import.name.as_deref() == Some("*")) {
            wrong.insert(format!("src/{}:{} imports everything of {}", file.name, import.line, import.path.join("::")));
        }
        wrong.into_iter().collect()
    }

    /// Groups of files that all reach each other, with the imports between them.
    fn circles(&self) -> Vec<String> {
        let edges: Vec<_> =
            self.edges().into_iter().filter(|(from, to, _)| self.files[*from].top() == self.files[*to].top()).collect();
        let reach: Vec<BTreeSet<usize>> = (0..self.files.len()).map(|start| reachable(start, &edges)).collect();
        let together = |a: usize, b: usize| reach[a].contains(&b) && reach[b].contains(&a);
        let mut circles = Vec::new();
        for first in 0..self.files.len() {
            let circle: Vec<usize> = (0..self.files.len()).filter(|other| together(first, *other)).collect();
            if circle.first() != Some(&first) {
                continue;
            }
            let inside = edges.iter().filter(|(from, to, _)| circle.contains(from) && circle.contains(to));
            let shown: BTreeSet<String> = inside
                .map(|(from, to, line)| format!("src/{}:{line} uses {}", self.files[*from].name, self.files[*to].name))
                .collect();
            circles.push(shown.into_iter().collect::<Vec<_>>().join(", "));
        }
        circles
    }

    fn definitions_in_root(&self) -> Vec<String> {
        let Some(root) = self.files.iter().find(|file| file.module.is_empty()) else { return Vec::new() };
        let mut found = Vec::new();
        for item in items(&root.tokens) {
            let words: Vec<&str> = item.iter().map(|token| token.text.as_str()).collect();
            let is_listed = match words[..] {
                ["#", "!", ..] | ["mod", _, ";"] | ["pub", "mod", _, ";"] => true,
                ["pub", "use", ..] => !words.contains(&"*"),
                _ => false,
            };
            if !is_listed {
                found.push(format!("src/{}:{}: {}", root.name, item[0].line, words.join(" ")));
            }
        }
        found
    }

    fn too_many_long_files(&self) -> Vec<String> {
        let long = self.files.iter().filter(|file| file.lines() > MAX_FILE_LINES);
        let long: Vec<String> = long.map(|file| format!("src/{}: {} lines", file.name, file.lines())).collect();
        if long.len() * 10 <= self.files.len() { Vec::new() } else { long }
    }

    fn long_functions(&self) -> Vec<String> {
        let mut long = Vec::new();
        for file in &self.files {
            let code: Vec<bool> = file.code.lines().map(|line| !line.trim().is_empty()).collect();
            for (name, first, last) in functions(&file.tokens) {
                let lines = code[first - 1..last].iter().filter(|is_code| **is_code).count();
                if lines > MAX_FUNCTION_LINES {
                    long.push(format!("src/{}:{first}: {name} has {lines} lines", file.name));
                }
            }
        }
        long
    }

    fn too_many_unsafe_files(&self) -> Vec<String> {
        let is_unsafe = |file: &&File| file.tokens.iter().any(|token| token.text == "unsafe");
        let files: Vec<String> = self.files.iter().filter(is_unsafe).map(|file| format!("src/{}", file.name)).collect();
        if files.len() <= MAX_UNSAFE_FILES { Vec::new() } else { files }
    }
}

impl File {
    fn new(name: String, text: &str) -> Self {
        let module = module_of(&name);
        let code = without_tests(without_comments(text));
        let tokens = tokens(&code);
        Self { name, module, code, tokens, imports: Vec::new() }
    }

    /// The module of the crate root that the file is, or is a part of.
    fn top(&self) -> Option<&str> {
        self.module.first().map(String::as_str)
    }

    fn lines(&self) -> usize {
        self.code.lines().filter(|line| !line.trim().is_empty()).count()
    }
}

/// The module that a file is.
fn module_of(name: &str) -> Vec<String> {
    let mut module: Vec<String> = name.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
        module.pop();
    }
    module
}

/// The modules in files of their own that a file declares behind `#[cfg(test)]`.
fn test_modules(name: &str, text: &str) -> Vec<Vec<String>> {
    let code = without_comments(text);
    let declared = code.split("#[cfg(test)]").skip(1).filter_map(|rest| {
        let (head, _) = rest.split_once(';')?;
        let words: Vec<&str> = head.split_whitespace().collect();
        match words[..] {
            ["mod", name] | ["pub(crate)" | "pub(super)", "mod", name] => Some(name.to_owned()),
            _ => None,
        }
    });
    declared.map(|child| [module_of(name), vec![child]].concat()).collect()
}

/// Collects the sources of a folder; test modules are left out, and folders in folders are refused.
fn read_folder(folder: &Path, prefix: &str, texts: &mut Vec<(String, String)>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("the folder can be listed").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("names in src are UTF-8");
        if matches!(name, "tests" | "tests.rs") {
            continue;
        }
        if path.is_dir() {
            assert!(prefix.is_empty(), "{} is a folder in a folder: src has one folder level", path.display());
            read_folder(&path, &format!("{name}/"), texts);
        } else {
            assert!(name.ends_with(".rs"), "{} is no source file", path.display());
            texts.push((format!("{prefix}{name}"), fs::read_to_string(&path).expect("sources are UTF-8")));
        }
    }
}

/// Blanks out comments and fills strings and characters with quotation marks; lines stay where they are.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let continues_word = out.ends_with(|last: char| last.is_alphanumeric() || last == '_');
        let (len, fill) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), Some(' '))
        } else if rest.starts_with("/*") {
            (block_comment_len(rest), Some(' '))
        } else if let Some(len) = string_len(rest).filter(|_| first == '"' || !continues_word) {
            (len, Some('"'))
        } else {
            (first.len_utf8(), None)
        };
        let (taken, behind) = rest.split_at(len);
        match fill {
            None => out.push_str(taken),
            Some(fill) => out.extend(taken.chars().map(|it| if it == '\n' { '\n' } else { fill })),
        }
        rest = behind;
    }
    out
}

fn block_comment_len(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// Length of the string or character literal that the text begins with.
fn string_len(text: &str) -> Option<usize> {
    let prefixed = ["br", "cr", "b", "c", "r", ""].iter().find_map(|prefix| {
        let rest = text.strip_prefix(prefix)?;
        let hashes = if prefix.ends_with('r') { rest.len() - rest.trim_start_matches('#').len() } else { 0 };
        rest[hashes..].starts_with('"').then_some((prefix.ends_with('r'), prefix.len() + hashes, hashes))
    });
    if let Some((is_raw, start, hashes)) = prefixed {
        let end = format!("\"{}", "#".repeat(hashes));
        let inside = &text[start + 1..];
        let len = if is_raw { inside.find(&end) } else { closing(inside, '"') }.unwrap_or(inside.len() - end.len());
        return Some(start + 1 + len + end.len());
    }
    let (start, inside) =
        if let Some(inside) = text.strip_prefix("b'") { (2, inside) } else { (1, text.strip_prefix('\'')?) };
    let mut chars = inside.chars();
    let first = chars.next()?;
    // What is left with one quotation mark is a lifetime.
    if first == '\\' || chars.next() == Some('\'') {
        let skipped = if first == '\'' { return None } else { closing(inside, '\'')? };
        return Some(start + skipped + 1);
    }
    None
}

/// Position of the first `quote` that has no backslash before it.
fn closing(inside: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    inside.char_indices().find_map(|(at, it)| {
        let found = it == quote && !is_escaped;
        is_escaped = it == '\\' && !is_escaped;
        found.then_some(at)
    })
}

/// Blanks out each item behind `#[cfg(test)]`, and those that only the concurrency models have.
fn without_tests(mut code: String) -> String {
    for mark in ["#[cfg(test)]", "#[cfg(loom)]"] {
        while let Some(start) = code.find(mark) {
            let end = start + mark.len() + item_len(&code[start + mark.len()..]);
            let blank: String = code[start..end].chars().map(|it| if it == '\n' { '\n' } else { ' ' }).collect();
            code.replace_range(start..end, &blank);
        }
    }
    code
}

/// Length of the item that the text begins with: to its semicolon, or to the end of its body.
fn item_len(code: &str) -> usize {
    let mut depth = 0;
    let is_import = code.trim_start().trim_start_matches("pub ").starts_with("use ");
    for (at, it) in code.char_indices() {
        match it {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' => depth -= 1,
            '}' => {
                depth -= 1;
                if depth == 0 && !is_import {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

fn tokens(code: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|it: char| !it.is_alphanumeric() && it != '_').unwrap_or(rest.len());
            let len = match first {
                _ if word > 0 => word,
                ':' if rest.starts_with("::") => 2,
                _ => first.len_utf8(),
            };
            tokens.push(Token { text: rest[..len].to_owned(), line: index + 1 });
            rest = rest[len..].trim_start();
        }
    }
    tokens
}

/// Splits the tokens of a file into its items.
fn items(tokens: &[Token]) -> Vec<&[Token]> {
    let (mut items, mut start, mut depth) = (Vec::new(), 0, 0);
    for (at, token) in tokens.iter().enumerate() {
        let is_end = match token.text.as_str() {
            "(" | "[" | "{" => {
                depth += 1;
                false
            }
            ")" | "]" | "}" => {
                depth -= 1;
                let is_attribute = token.text == "]" && tokens[start].text == "#";
                let is_body = token.text == "}" && tokens.get(at + 1).is_none_or(|next| next.text != ";");
                depth == 0 && (is_attribute || is_body)
            }
            ";" => depth == 0,
            _ => false,
        };
        if is_end {
            items.push(&tokens[start..=at]);
            start = at + 1;
        }
    }
    items
}

/// The functions with a body: name, first and last line.
fn functions(tokens: &[Token]) -> Vec<(&str, usize, usize)> {
    let mut functions = Vec::new();
    for (at, pair) in tokens.windows(2).enumerate() {
        let is_named = pair[1].text.starts_with(|it: char| it.is_alphabetic() || it == '_');
        if pair[0].text != "fn" || !is_named {
            continue;
        }
        let mut depth = 0;
        for token in &tokens[at..] {
            match token.text.as_str() {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" => depth -= 1,
                "}" if depth == 1 => {
                    functions.push((pair[1].text.as_str(), pair[0].line, token.line));
                    break;
                }
                "}" => depth -= 1,
                ";" if depth == 0 => break,
                _ => {}
            }
        }
    }
    functions
}

/// The paths into this crate that occur in a file whose child modules are `children`.
fn imports(tokens: &[Token], children: &BTreeSet<&str>) -> Vec<Import> {
    let is_ours = |text: &str| matches!(text, "crate" | "super" | "self") || children.contains(text);
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let (mut found, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if text(at) == "use" && text(at + 1) != "<" {
            // `pub use`, or `pub(crate) use`
            let is_reexport = at > 0 && matches!(text(at - 1), "pub" | ")");
            let mut tree = Vec::new();
            at = use_tree(tokens, at + 1, &[], &mut tree);
            found.extend(tree.into_iter().map(|import| Import { is_reexport, ..import }));
        } else if is_ours(text(at)) && text(at + 1) == "::" && (at == 0 || !matches!(text(at - 1), "::" | "in")) {
            let line = tokens[at].line;
            let mut path = vec![text(at).to_owned()];
            while text(at + 1) == "::" && text(at + 2).starts_with(|it: char| it.is_alphabetic() || it == '_') {
                path.push(text(at + 2).to_owned());
                at += 2;
            }
            found.push(Import { path, line, name: None, is_reexport: false });
            at += 1;
        } else {
            at += 1;
        }
    }
    found.retain(|import| is_ours(&import.path[0]));
    found
}

/// Reads a `use` tree from `at` on, and returns where it ends.
fn use_tree(tokens: &[Token], mut at: usize, prefix: &[String], found: &mut Vec<Import>) -> usize {
    let mut path = prefix.to_vec();
    let mut alias = None;
    let line = tokens[at].line;
    loop {
        match tokens[at].text.as_str() {
            "::" => {}
            "{" => {
                at += 1;
                while tokens[at].text != "}" {
                    at = use_tree(tokens, at, &path, found);
                    match tokens[at].text.as_str() {
                        "," => at += 1,
                        "}" => {}
                        other => panic!("line {line}: {other} in an import"),
                    }
                }
                return at + 1;
            }
            "as" => {
                alias = Some(tokens[at + 1].text.clone());
                at += 1;
            }
            "," | "}" | ";" => break,
            // In braces, `self` is the module itself.
            "self" if !path.is_empty() => {}
            name => path.push(name.to_owned()),
        }
        at += 1;
    }
    let name = alias.or_else(|| path.last().cloned());
    path.retain(|segment| segment != "*");
    found.push(Import { path, line, name, is_reexport: false });
    at
}

fn reachable(start: usize, edges: &[(usize, usize, usize)]) -> BTreeSet<usize> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![start]);
    while let Some(from) = open.pop() {
        for (_, to, _) in edges.iter().filter(|(source, ..)| *source == from) {
            if reached.insert(*to) {
                open.push(*to);
            }
        }
    }
    reached
}

/// The test itself, on made-up crates: it finds what it should, and nothing else.
mod proof {
    use super::*;

    const TWO: &[&[&str]] = &[&["low", "beside"], &["high"]];

    fn sources(files: &[(&str, &str)]) -> Sources {
        let files: BTreeMap<&str, &str> = [("lib.rs", "")].iter().chain(files).copied().collect();
        Sources::new(files.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())))
    }

    #[test]
    fn an_import_that_goes_down_is_right() {
        let down = sources(&[("low.rs", "pub fn f() {}"), ("high.rs", "use crate::low::f;")]);
        assert_eq!(down.wrong_imports(TWO), [""; 0]);
    }

    #[test]
    fn an_import_that_goes_up_is_found_in_every_form() {
        let forms = [
            "use crate::high::f;",
            "use crate::{high::{self, f}};",
            "use super::high;",
            "fn g() { crate::high::f() }",
            "fn g() { super::high::f() }",
            "pub use crate::high::f as g;",
            "use crate::F;",
            "fn g() -> crate::F { todo!() }",
        ];
        for form in forms {
            let files = [("lib.rs", "mod low; mod high; pub use high::F;"), ("low.rs", form), ("high.rs", "")];
            assert_eq!(sources(&files).wrong_imports(TWO), ["src/low.rs:1 uses high.rs"], "{form}");
        }
    }

    #[test]
    fn modules_of_one_line_do_not_know_each_other() {
        let beside = sources(&[("low.rs", "\nuse crate::beside::f;"), ("beside.rs", "")]);
        assert_eq!(beside.wrong_imports(TWO), ["src/low.rs:2 uses beside.rs"]);
    }

    #[test]
    fn a_module_that_the_table_does_not_name_may_not_be_used() {
        let unknown = sources(&[("high.rs", "use crate::new::f;"), ("new.rs", "")]);
        assert_eq!(unknown.wrong_imports(TWO), ["src/high.rs:1 uses new.rs"]);
    }

    #[test]
    fn an_import_of_everything_is_refused() {
        let everything = sources(&[("high.rs", "use crate::low::*;"), ("low.rs", "")]);
        assert_eq!(everything.wrong_imports(TWO), ["src/high.rs:1 imports everything of crate::low"]);
    }

    #[test]
    fn comments_strings_and_tests_do_not_count() {
        let text = r##"
            //! crate::high::f
            /* use crate::high; /* crate::high::f */ */
            const A: (&str, &str, char) = ("\" crate::high::f", r#"" crate::high::f"#, '"'); // crate::high::f
            fn f<'a>(text: &'a str) -> &'a str { text }
            #[cfg(test)]
            use crate::{high::f};
            #[cfg(test)]
            mod tests { use crate::high::f; fn g() { crate::high::f() } }
        "##;
        let files = sources(&[("low.rs", text), ("high.rs", "")]);
        assert_eq!(files.wrong_imports(TWO), [""; 0]);
        assert_eq!(files.files[2].lines(), 2, "{}", files.files[2].code);
    }

    #[test]
    fn a_test_module_in_a_file_of_its_own_does_not_count() {
        let tests = "unsafe fn f() {} use crate::high::f;".to_owned();
        let read = |mark: &str| {
            let parent = format!("{mark}\npub(crate) mod fake;\nmod part;");
            Sources::new([("low/mod.rs".to_owned(), parent), ("low/fake.rs".to_owned(), tests.clone())])
        };
        assert_eq!(read("#[cfg(test)]").files.len(), 1);
        assert_eq!(read("").files.len(), 2);
        assert_eq!(read("#[cfg(unix)]").files.len(), 2);
    }

    #[test]
    fn code_behind_a_test_module_counts() {
        let text = "#[cfg(test)]\nmod tests { fn f() { { } } }\nuse crate::high::f;";
        let files = sources(&[("low.rs", text), ("high.rs", "")]);
        assert_eq!(files.wrong_imports(TWO), ["src/low.rs:3 uses high.rs"]);
    }

    #[test]
    fn a_circle_of_files_is_found() {
        let circle = sources(&[
            ("low/mod.rs", "mod a; mod b; mod c; pub use a::A;"),
            ("low/a.rs", "use super::b::B; pub struct A;"),
            ("low/b.rs", "use super::A; pub struct B;"),
            ("low/c.rs", "use super::A;"),
        ]);
        assert_eq!(circle.circles(), ["src/low/a.rs:1 uses low/b.rs, src/low/b.rs:1 uses low/a.rs"]);
    }

    #[test]
    fn a_file_and_its_parent_that_use_each_other_are_a_circle() {
        let parent = "mod part; use part::Part; pub struct Whole(Part);";
        let circle = sources(&[("low/mod.rs", parent), ("low/part.rs", "use super::Whole; pub struct Part;")]);
        assert_eq!(circle.circles(), ["src/low/mod.rs:1 uses low/part.rs, src/low/part.rs:1 uses low/mod.rs"]);
        let inline = "mod part; pub struct Whole; fn f() { part::g() }";
        let circle = sources(&[("low/mod.rs", inline), ("low/part.rs", "pub fn g() -> super::Whole { todo!() }")]);
        assert_eq!(circle.circles().len(), 1);
    }

    #[test]
    fn a_re_export_makes_no_circle() {
        let parent = "mod part; mod other; pub(crate) use part::Part; pub use other::Other;";
        let parts = [("low/part.rs", "pub struct Part;"), ("low/other.rs", "use super::Part; pub struct Other;")];
        assert_eq!(sources(&[("low/mod.rs", parent), parts[0], parts[1]]).circles(), [""; 0]);
    }

    #[test]
    fn a_long_function_is_found() {
        let of = |statements: usize| {
            format!("\nfn f<T>(x: [u8; 3]) {{\n{}}}\n", "    x();\n\n    // x\n".repeat(statements))
        };
        let long = sources(&[("low.rs", &of(MAX_FUNCTION_LINES - 1))]);
        assert_eq!(long.long_functions(), ["src/low.rs:2: f has 71 lines"]);
        assert_eq!(sources(&[("low.rs", &of(MAX_FUNCTION_LINES - 2))]).long_functions(), [""; 0]);
    }

    #[test]
    fn too_many_long_files_are_found() {
        let (long, short) = ("fn f() {}\n".repeat(MAX_FILE_LINES + 1), "fn f() {}".to_owned());
        let crate_of = |files: usize| {
            let text = |file: usize| if file == 0 { long.clone() } else { short.clone() };
            Sources::new((0..files).map(|file| (format!("m{file}.rs"), text(file))))
        };
        assert_eq!(crate_of(10).too_many_long_files(), [""; 0]);
        assert_eq!(crate_of(9).too_many_long_files(), ["src/m0.rs: 351 lines"]);
    }

    #[test]
    fn too_many_unsafe_files_are_found() {
        let crate_of = |files: usize| {
            let text = "// unsafe\n#![deny(unsafe_op_in_unsafe_fn)]\nunsafe fn f() {}".to_owned();
            Sources::new((0..files).map(|file| (format!("m{file}.rs"), text.clone())))
        };
        assert_eq!(crate_of(MAX_UNSAFE_FILES).too_many_unsafe_files(), [""; 0]);
        assert_eq!(crate_of(MAX_UNSAFE_FILES + 1).too_many_unsafe_files().len(), MAX_UNSAFE_FILES + 1);
        let safe = Sources::new((0..5).map(|file| (format!("m{file}.rs"), "// unsafe\n".to_owned())));
        assert_eq!(safe.too_many_unsafe_files(), [""; 0]);
    }

    #[test]
    fn a_definition_in_the_crate_root_is_found() {
        let root = "#![doc = \"\"]\nmod low;\npub mod high;\npub use low::{a, b};\n";
        assert_eq!(sources(&[("lib.rs", root)]).definitions_in_root(), [""; 0]);
        for item in ["pub fn f() {}", "struct A;", "pub use low::*;", "#[inline] fn f() {}", "mod m { fn f() {} }"] {
            let more = format!("{root}{item}\n");
            assert_ne!(sources(&[("lib.rs", &more)]).definitions_in_root(), [""; 0], "{item}");
        }
    }
}
