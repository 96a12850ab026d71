# SPDX-License-Identifier: GPL-2.0
# The dma-rs devices on arm64, behind an SMMUv3 in strict mode.
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
CONFIG_IOMMU_SUPPORT=y
CONFIG_ARM_SMMU_V3=y''',
			   qemu_arch='aarch64',
			   kernel_path='arch/arm64/boot/Image.gz',
			   kernel_command_line='console=ttyAMA0 iommu.strict=1',
			   extra_qemu_params=['-machine', 'virt,gic-version=3,iommu=smmuv3',
					      '-cpu', 'max',
					      '-smp', '2',
					      '-device', 'edu',
					      '-device', 'pci-testdev',
					      '-device', 'e1000,romfile='])
