# SPDX-License-Identifier: GPL-2.0
# The dma-rs devices on arm64, without an IOMMU, and simulated buses.
# Made by tools/testing/dma-rs/qemu_configs.py: don't edit.

from ..qemu_config import QemuArchParams

QEMU_ARCH = QemuArchParams(linux_arch='arm64',
			   kconfig='''
CONFIG_EXPERT=y
CONFIG_SMP=y
CONFIG_RUST=y
CONFIG_PCI=y
CONFIG_PCI_MSI=y
CONFIG_PCI_HOST_GENERIC=y
CONFIG_SERIAL_AMBA_PL011=y
CONFIG_SERIAL_AMBA_PL011_CONSOLE=y
CONFIG_XEN=y
CONFIG_RUST_KUNIT_TESTS=y
CONFIG_RUST_DMA_SIM=y''',
			   qemu_arch='aarch64',
			   kernel_path='arch/arm64/boot/Image.gz',
			   kernel_command_line='console=ttyAMA0 dma_rs_edu.dma_bits=32',
			   extra_qemu_params=['-machine', 'virt,gic-version=3',
					      '-cpu', 'max',
					      '-smp', '2',
					      '-device', 'edu,dma_mask=0xffffffff',
					      '-device', 'pci-testdev',
					      '-device', 'e1000,romfile='])
