# Writes data/seurat_export: a small Seurat object of 60 simulated cells, exported as the chapter "From Seurat" shows.
# Run it from the repository: Rscript tools/make_seurat_export.R
library(SeuratObject)
library(Matrix)

set.seed(1)
cell_type <- factor(rep(c("alpha", "beta", "T/NK cell"), each = 20))
genes <- c("INS", "GCG", "MT-CO1", "HLA_DRA", "TRAC", "CD3D", paste0("GENE", 7:40))
expected <- matrix(1, 40, 60)
expected[1, cell_type == "beta"] <- 20
expected[2, cell_type == "alpha"] <- 20
expected[5:6, cell_type == "T/NK cell"] <- 12
simulated <- matrix(rnbinom(40 * 60, mu = expected, size = 3), 40, 60)
dimnames(simulated) <- list(genes, paste0("CELL", 1:60, "-1"))
object <- CreateSeuratObject(as(simulated, "CsparseMatrix"))
object$cell_type <- cell_type
object$donor <- rep(c("donor 1", "donor 2"), 30)
folder <- file.path("data", "seurat_export")

# --- the lines of the chapter
counts <- GetAssayData(object, assay = "RNA", slot = "counts")   # Seurat 4
dir.create(folder, showWarnings = FALSE)
writeMM(counts, file.path(folder, "matrix.mtx"))
writeLines(rownames(counts), file.path(folder, "features.tsv"))
writeLines(colnames(counts), file.path(folder, "barcodes.tsv"))
write.csv(object[[]], file.path(folder, "cells.csv"))
# --- and two other ways, that readers have files from
write.csv(as.matrix(counts), file.path(folder, "counts.csv"))
write.table(object[[]], file.path(folder, "cells.txt"))

print(R.version.string)
for (package in c("SeuratObject", "Matrix")) cat(package, as.character(packageVersion(package)), "\n")
