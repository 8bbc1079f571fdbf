//! The benches' own programs, in C over DPDK, compiled when they are first needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ringway_testbed::{TempDir, scratch_dir};

/// A program to start.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    /// Where it was compiled, if it was.
    _dir: Option<TempDir>,
}

impl Program {
    /// One of ours, compiled for this very CPU. A warning is an error.
    pub(crate) fn ours(name: &str, source: &str) -> Result<Self> {
        let dir = scratch_dir()?;
        let file = dir.path().join(name).with_extension("c");
        fs::write(&file, source)?;
        Self::compile(dir, &file, &["-Wall", "-Wextra", "-Werror"])
    }

    /// Somebody else's: a C source, compiled in the same way but for its warnings, or a program that is there.
    pub(crate) fn others(file: &Path) -> Result<Self> {
        ensure!(file.is_file(), "no file {}", file.display());
        if file.extension().is_some_and(|extension| extension == "c") {
            Self::compile(scratch_dir()?, file, &["-w"])
        } else {
            Ok(Self { path: file.canonicalize()?, _dir: None })
        }
    }

    fn compile(dir: TempDir, file: &Path, warnings: &[&str]) -> Result<Self> {
        let path = dir.path().join("program");
        let dpdk = output(Command::new("pkg-config").args(["--cflags", "--libs", "libdpdk"]))?;
        let mut gcc = Command::new("gcc");
        gcc.args(["-O3", "-march=native"]).args(warnings).arg("-o").arg(&path).arg(file);
        output(gcc.args(dpdk.split_whitespace()))?;
        Ok(Self { path, _dir: Some(dir) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let out = command.output().with_context(|| format!("{program} cannot be started"))?;
    ensure!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_compiled_and_a_program_is_taken_as_it_is() {
        let dir = scratch_dir().unwrap();
        let source = dir.path().join("seven.c");
        fs::write(&source, "int main(void) { return 7; }\n").unwrap();
        let program = Program::others(&source).unwrap();
        assert_eq!(Command::new(program.path()).status().unwrap().code(), Some(7));
        let same = Program::others(program.path()).unwrap();
        assert_eq!(same.path(), program.path().canonicalize().unwrap());
    }

    #[test]
    fn a_mistake_is_told_in_the_words_of_the_compiler() {
        let error = Program::ours("mistake", "int main(void) { return seven; }\n").unwrap_err().to_string();
        assert!(error.contains("seven"), "{error}");
        Program::others(Path::new("/no/such/file.c")).unwrap_err();
    }
}
